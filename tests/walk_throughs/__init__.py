"""What CONTRIBUTING adds to windowshift as examples: a condition, a scorer, a screen."""
