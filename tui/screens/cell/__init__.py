"""One cell, and one completion of it."""
