"""The store: one SQLite file in a workspace, one writer, many readers."""
