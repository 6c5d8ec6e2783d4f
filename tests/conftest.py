"""Fixtures that every test can use."""

from tests.runs import tiny_llama as tiny_llama
