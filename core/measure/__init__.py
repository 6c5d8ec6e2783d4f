"""The measures: from stored scores to numbers with intervals."""
