"""The setting of sycophancy: whether a model confirms a wrong answer that a user proposes."""
