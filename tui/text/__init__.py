"""Text on screen: colours, numbers, tables and words, without a widget."""
