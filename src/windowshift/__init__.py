"""windowshift: grids of fine-tunes and evaluations under prefixes and steering doses."""

__version__ = "0.1.0"
