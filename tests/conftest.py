"""Fixtures that every test can use."""

from tests.runs import tiny_llama as tiny_llama
from tests.tinkered import tinker_server as tinker_server
