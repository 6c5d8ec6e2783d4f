"""Backends: generate and train behind one protocol (`windowshift.core.contract.backend.Backend`)."""
