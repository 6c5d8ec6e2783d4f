"""Fixtures that every test can use."""

from tests.runs import tiny_llama as tiny_llama
from tests.vllm_server import keyed as keyed
from tests.vllm_server import vllm_server as vllm_server
