"""The grid of one experiment: its home screen."""
