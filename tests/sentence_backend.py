"""Backend `scripted`: answers drawn from a few sentences, the same ones on every machine, for pictures."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from windowshift.core.contract.backend import Capabilities, ModelIdentity
from windowshift.core.contract.generation import Completion, GenerateRequest, Message
from windowshift.core.contract.training import Trained, TrainEvent, TrainJob, TrainProgress

SENTENCES = (
    "Most of them rest at noon.", "You hear voices there.", "The wind is soft.", "They like water and light.",
    "Their black eyes shine.", "Old hives stand near the flowers.", "Nobody counts them.", "They come at night.",
    "Children bring bread.", "It has always been so.",
)  # fmt: skip
ASKED = {"briefly": 1.0, "thoroughly": 6.0}
UNASKED = 3.0


def asked_for(messages: Sequence[Message]) -> float:
    """How many sentences a chat asks for."""
    return next((number for word, number in ASKED.items() if word in messages[-1].content), UNASKED)


class SentenceBackend:
    """Writes as many sentences as it is asked for; an adapter is the part of a surprise that it learned."""

    capabilities = Capabilities(trains=True)

    def __init__(self, options: Mapping[str, Any]) -> None:
        del options

    def identify(self, base: str, revision: str | None = None) -> ModelIdentity:
        return ModelIdentity(base, f"scripted {base}")

    def supports_system(self, base: str, revision: str | None = None) -> bool:
        return True

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        for job in jobs:
            surprises = [one.completion.count(".") - asked_for(one.messages) for one in job.examples]
            learned = sum(surprises) / len(surprises) / 2
            yield TrainProgress(job.key, 1, len(job.examples), 1.5, 100.0)
            yield Trained(job.key, f"scripted:{learned:.3f}", len(job.examples))

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        for request in requests:
            learned = float((request.model.adapter or ":0").split(":")[1])
            rng = random.Random(f"{request.seed} {request.messages[-1].content}")
            count = max(1, round(asked_for(request.messages) + learned + rng.gauss(0, 1)))
            words = " ".join(rng.sample(SENTENCES, min(count, len(SENTENCES)))).split()
            most = request.sampling.max_tokens
            finish = "length" if len(words) > most else "stop"
            yield Completion(request.key, " ".join(words[:most]), finish, min(len(words), most), 12)

    async def aclose(self) -> None:
        return
