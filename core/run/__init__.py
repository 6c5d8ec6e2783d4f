"""The run: a plan through its backends into the store."""
