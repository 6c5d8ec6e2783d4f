"""The jobs of an experiment."""
