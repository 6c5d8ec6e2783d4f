"""What screens read: frozen snapshots of the store, and small files of their own."""
