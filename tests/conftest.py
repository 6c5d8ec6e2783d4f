"""Fixtures that every test can use, and how property tests run."""

from hypothesis import settings

from tests.runs import tiny_llama as tiny_llama
from tests.tinkered import tinker_server as tinker_server
from tests.vllm_server import keyed as keyed
from tests.vllm_server import vllm_server as vllm_server

settings.register_profile("windowshift", deadline=None)  # a busy machine is no failure
settings.load_profile("windowshift")
