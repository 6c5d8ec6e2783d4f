"""The steering of an experiment."""
