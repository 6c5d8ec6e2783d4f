"""What a request for text looks like, by its route."""

from __future__ import annotations

from collections.abc import Mapping

from windowshift.backends.serve.chat_request import ChatRequest
from windowshift.backends.serve.response_request import ResponseRequest
from windowshift.backends.serve.sampling_request import SamplingRequest
from windowshift.backends.serve.text_completion_request import TextCompletionRequest

KINDS: Mapping[str, type[SamplingRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": TextCompletionRequest,
    "/v1/responses": ResponseRequest,
}
