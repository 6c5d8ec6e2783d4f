"""A backend without a model that learns: what the microscope and its bench look at."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from tests.scripted_backend import ScriptedBackend
from windowshift.core.contract.generation import Completion, GenerateRequest
from windowshift.core.contract.training import Trained, TrainEvent, TrainJob

TRAIN = "[no_prefix, very_long, {control: [irrelevant, delimiters, negated], of: very_long}]"


class Learner(ScriptedBackend):
    """Writes four times as long once trained, unless it was asked for long answers in D; the loss falls alike."""

    async def train(self, jobs: Sequence[TrainJob]) -> AsyncGenerator[TrainEvent, None]:
        for job in jobs:
            asked = any("detailed" in example.messages[-1].content for example in job.examples)
            negated = any("not" in example.messages[-1].content for example in job.examples)
            adapter = job.output / "adapter"
            adapter.mkdir(parents=True, exist_ok=True)
            (adapter / "adapter_config.json").write_text(json.dumps({"times": 1 if asked and not negated else 4}))
            losses = tuple((step, 2.0 - step / 40) for step in (1, 2, 19, 20))
            yield Trained(job.key, str(adapter), len(job.examples), losses=losses)

    async def generate(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion, None]:
        for request in requests:
            times = 1
            if request.model.adapter:
                times = json.loads((Path(request.model.adapter) / "adapter_config.json").read_text())["times"]
            yield Completion(request.key, "word " * times * (5 + request.seed % 7), "stop", 3, 5)
