"""The spec: a YAML file that describes one experiment, read, checked and resolved."""
