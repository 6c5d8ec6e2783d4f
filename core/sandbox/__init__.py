"""The sandbox: code that a model wrote is run apart from everything, and judged outside of its process."""
