"""The terminal UI: reads the store, starts and stops runs as separate processes."""
