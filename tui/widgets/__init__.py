"""Widgets: what draws itself on a screen."""
