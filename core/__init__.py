"""Conditions, specs, plans, the store and the measures: everything that needs no model library."""
