"""Steering vectors and interventions (nnsight, torch)."""
