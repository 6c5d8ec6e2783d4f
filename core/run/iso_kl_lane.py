"""The lane of iso-KL: alphas searched for by what a backend tells of the base model's own completions under them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import numpy as np

from windowshift.core.contract.artifacts import DamagedError
from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import BackendError, SpecError, StoreError
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.reading import DivergingBackend, ReadRequest
from windowshift.core.contract.stats import Floats
from windowshift.core.measure.iso_kl import IsoKlSearch
from windowshift.core.plan.jobs import Job
from windowshift.core.run.call import call
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.requests import RequestMaker

FIRST_DOSE, LARGEST_DOSE = 0.1, 6.4
FIRST_ALPHA, LARGEST_ALPHA = 1.0, 4096.0
"""Where the search begins and ends, in units of the residual stream; in alphas for a vector without its norms."""


class IsoKlLane:
    """Searches for the alphas of some jobs, one after another."""

    def __init__(self, ledger: Ledger, backends: Mapping[str, Backend], maker: RequestMaker) -> None:
        self._ledger, self._backends, self._maker = ledger, backends, maker

    async def run(self, name: str, jobs: Sequence[Job]) -> None:
        """Search with one backend."""
        with call(self._ledger, name, jobs, "finding every alpha"):
            backend = self._backends[name]
            assert isinstance(backend, DivergingBackend)  # the plan has seen to it
            for job in jobs:
                self._ledger.start(job)
                with self._ledger.remaking(job):
                    try:
                        result, problem = await self._solved(backend, job)
                    except DamagedError:
                        raise
                    except (SpecError, StoreError, BackendError) as error:
                        self._ledger.fail(job, str(error))
                        continue
                    if problem is None:
                        self._ledger.finish(job, result)
                    else:
                        self._ledger.fail(job, problem, result)

    async def _solved(self, backend: DivergingBackend, job: Job) -> tuple[dict[str, Any], str | None]:
        """The result of a job, and why it cannot be used: the KL may be out of reach.

        Raises:
            SpecError: the vector has no direction at its layer.
            StoreError: completions are missing.
            BackendError: what was to be read could not be.
        """
        inputs = job.inputs
        header, layer = self._maker.header(inputs["vector"]), self._maker.layer(inputs["layer"])
        header.layer_in_use(layer)
        file, requests, cut = self._maker.vector(inputs["vector"]), self._requests(job), self._cut(job)
        if header.rms is None:
            search = IsoKlSearch(inputs["nats"], FIRST_ALPHA, LARGEST_ALPHA)
        else:
            first, most = (header.alpha_of(dose, layer) for dose in (FIRST_DOSE, LARGEST_DOSE))
            search = IsoKlSearch(inputs["nats"], first, most)
        while (alpha := search.next()) is not None:
            pushed = (Steering(file, alpha, layer, inputs["tokens"]),)
            some = [ReadRequest(one.key, one.messages, one.text, one.model, pushed) for one in requests]
            search.add(alpha, await _measured(backend, some, cut))
        found = await asyncio.to_thread(search.found)
        result = {
            **{key: value for key, value in asdict(found).items() if key != "problem"},
            "vector": header.name,
            "layer": layer,
            "push": inputs["tokens"],
            "dose": None if found.alpha is None or header.rms is None else header.dose_of(found.alpha, layer),
        }
        return result, None if found.problem is None else f"{found.problem}; ask for another iso_kl"

    def _requests(self, job: Job) -> list[ReadRequest]:
        source = self._ledger.job(job.inputs["completions"])
        texts = {row.row: row.text for row in self._completions(job) if row.text and row.finish != "failed"}
        found = [
            ReadRequest(str(row.number), row.request.messages, texts[row.number], row.request.model)
            for row in self._maker.rows(source, set())
            if row.number in texts
        ]
        if not found:
            raise StoreError(f"'{source.label}' has no completion to measure KL on; retry it")
        return found

    def _cut(self, job: Job) -> frozenset[str]:
        """The completions that were cut off: their end is not the model's."""
        return frozenset(str(row.row) for row in self._completions(job) if row.finish == "length")

    def _completions(self, job: Job) -> Sequence[Any]:
        number = self._ledger.numbers[job.inputs["completions"]]
        return self._ledger.reader.completions(number, self._ledger.plan.scorers[0].behaviours[0].name)


async def _measured(backend: DivergingBackend, requests: list[ReadRequest], cut: frozenset[str]) -> list[Floats]:
    """The KL of every token, an array a prompt, in the order of the requests.

    Raises:
        BackendError: one could not be read, or its KL is no number.
    """
    found: dict[str, Floats] = {}
    async with aclosing(backend.diverge(requests)) as stream:
        async for one in stream:
            if one.nats is None:
                raise BackendError(f"KL could not be measured: {one.error or 'no reason was given'}")
            nats = np.array(one.nats[:-1] if one.key in cut else one.nats, dtype=float)
            if np.isnan(nats).any():
                raise BackendError("KL is no number: the push is too large for the model's arithmetic")
            found[one.key] = nats
    if len(found) < len(requests):
        raise BackendError(f"KL could not be measured: {len(requests) - len(found)} answers did not come back")
    return [found[request.key] for request in requests]
