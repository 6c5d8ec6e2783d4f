"""The setting of honesty: closed questions about facts whose answer is known."""
