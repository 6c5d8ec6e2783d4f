"""Benchmarks with printed numbers; `python -m bench`, or `make bench`."""
