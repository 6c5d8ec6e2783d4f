"""The setting of trait pairs: two traits shown at once, one to be kept and one that should not be learned."""
