"""Backends: generate and train behind one protocol (`windowshift.core.backend.Backend`)."""
