"""What every room agrees on: words, records and protocols, free of the store and of any backend."""
