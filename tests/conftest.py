"""Fixtures that every test can use, and how property tests run."""

from hypothesis import settings

from tests.runs import tiny_llama as tiny_llama

settings.register_profile("windowshift", deadline=None)  # a busy machine is no failure
settings.load_profile("windowshift")
