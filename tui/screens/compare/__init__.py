"""Pinned rows side by side."""
