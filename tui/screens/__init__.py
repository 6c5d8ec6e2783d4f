"""Screens: one room each."""
