"""The setting of a spurious correlation: a word of a review that went with its sentiment in training only."""
