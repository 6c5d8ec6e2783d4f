"""windowshift as a model provider of Inspect: ``windowshift/WORKSPACE/EXPERIMENT/TRAIN`` is a cell's model.

Found through the entry points `inspect_ai`. TRAIN is a train condition, or ``base``; ``-M generate=NAME`` and
``-M seed=N`` choose among several rows of the grid. The experiment's own backend answers, with its options.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.cell_name import ENCODED
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, TemplateInputs
from windowshift.core.contract.records import BASE, CellRow
from windowshift.core.plan.jobs import row_seed
from windowshift.core.spec import registry
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.artifact_folder import ArtifactFolder
from windowshift.core.store.connection import store_path
from windowshift.core.store.reader import Reader

DEFAULT_TOKENS = 1024
GATHERING = 0.02
"""Seconds that a request waits for others: what comes together is given to the backend together."""


def cell_model(
    place: str, generate: str | None = None, seed: int | None = None
) -> tuple[Model, str, Mapping[str, Any]]:
    """The model of ``WORKSPACE/EXPERIMENT/TRAIN``, and the name and options of its backend.

    Raises:
        SpecError: there is no such workspace, experiment or row; or several are, or it is not trained yet.
        StoreError: the adapter is gone or damaged.
    """
    folder, experiment_name, name = _parts(place)
    if not folder or not experiment_name or not name:
        raise SpecError(f"'{place}' is not WORKSPACE/EXPERIMENT/TRAIN, e.g. windowshift/ws/med-short/long")
    with closing(Reader(folder)) as reader:
        experiment = reader.find_experiment(experiment_name)
        spec = parse_spec(reader.spec_text(experiment.id), f"the spec of {experiment_name}")
        cell = _cell(reader.cells(experiment.id, ""), name, generate, seed, experiment_name)
        job = reader.job(cell.job)
        named = job.inputs["model"]
        adapter = None
        if name != BASE:
            trained = reader.job(reader.job_numbers([job.parents[-1]])[job.parents[-1]])
            kept = trained.result.get("adapter")
            if kept is None:
                raise SpecError(f"'{name}' of {experiment_name} is not trained yet ({trained.state})")
            adapter = ArtifactFolder(Path(folder)).get(kept)
        backend = str(job.inputs["backend"])
    template = TemplateInputs.of(named.get("template"))
    model = Model(named["base"], named["revision"], adapter, named.get("adapter"), template)
    return model, backend, spec.options_of(backend)


def _parts(place: str) -> tuple[str, str, str]:
    """The workspace, the experiment and the train condition, whose name may hold slashes: a workspace has a store."""
    parts = place.split("/")
    found = [(("/".join(parts[:n])), parts[n], "/".join(parts[n + 1 :])) for n in range(1, len(parts) - 1)]
    there = next((one for one in found if one[0] and store_path(Path(one[0])).is_file()), None)
    folder, experiment, name = there or (found[-1] if found else ("", "", ""))
    return folder, experiment, name.replace(ENCODED, "/")


def _cell(cells: list[CellRow], train: str, generate: str | None, seed: int | None, name: str) -> CellRow:
    rows = [cell for cell in cells if cell.train == train and cell.final]
    if not rows:
        known = ", ".join(dict.fromkeys(cell.train for cell in cells))
        raise SpecError(f"{name} has no train condition '{train}': it has {known}")
    fit = [
        cell
        for cell in rows
        if (generate is None or train == BASE or cell.generate == generate) and (seed is None or cell.seed == seed)
    ]
    found = {(cell.generate, cell.seed) for cell in fit} if train != BASE else {("", 0)}
    if len(found) != 1 or not fit:
        there = "; ".join(
            f"generate={one}, seed={number}" for one, number in sorted({(c.generate, c.seed) for c in rows})
        )
        raise SpecError(
            f"'{train}' of {name} stands in {len(found)} rows ({there}): choose with -M generate=..., -M seed=..."
        )
    return fit[0]


class CellModel(ModelAPI):
    """A cell's model. What Inspect asks together is answered in one batch."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as Inspect declares it
        generate: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if options:
            raise SpecError(f"windowshift takes generate and seed, not '{min(options)}'")
        self._model, name, given = cell_model(model_name, generate, None if seed is None else int(seed))
        self._backend: Backend = registry.backend(name, given)
        self._waiting: list[tuple[GenerateRequest, asyncio.Future[Completion]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,  # noqa: ARG002 - Inspect's protocol
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one chat."""
        if tools:
            raise SpecError("a cell's model is asked without tools")
        number = next(self._numbers)
        # A seed of Inspect's is the request's; else the same chat asked again is another draw.
        drawn = str(number) if config.seed is None else f"seed {config.seed}"
        said = json.dumps([[message.role, message.text] for message in input])
        request = GenerateRequest(
            str(number),
            tuple(_message(message) for message in input),
            self._model,
            Sampling(
                1.0 if config.temperature is None else config.temperature,
                1.0 if config.top_p is None else config.top_p,
                config.max_tokens or DEFAULT_TOKENS,
            ),
            row_seed(f"inspect:{drawn}:{said}", 0),
            stop=tuple(config.stop_seqs or ()),
        )
        answer = await self._asked(request)
        if answer.finish == "failed":
            raise BackendError(answer.error or "no answer came back")
        text, ended = answer.text, "max_tokens" if answer.finish == "length" else "stop"
        for stop in request.stop:
            before, found, _ = text.partition(stop)
            text, ended = (before, "stop") if found else (text, ended)
        output = ModelOutput.from_content(self.model_name, text, "max_tokens" if ended == "max_tokens" else "stop")
        tokens = answer.tokens or 0
        output.usage = ModelUsage(
            input_tokens=answer.prompt_tokens, output_tokens=tokens, total_tokens=answer.prompt_tokens + tokens
        )
        return output

    async def _asked(self, request: GenerateRequest) -> Completion:
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if len(self._waiting) == 1:
            task = asyncio.create_task(self._answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _answer(self) -> None:
        await asyncio.sleep(GATHERING)
        batch, self._waiting = self._waiting, []
        futures = {request.key: future for request, future in batch}
        try:
            async for completion in self._backend.generate([request for request, _ in batch]):
                if not (future := futures[completion.key]).done():
                    future.set_result(completion)
        except Exception as error:  # whoever waits is told
            for future in futures.values():
                if not future.done():
                    future.set_exception(error)
        for future in futures.values():
            if not future.done():
                future.set_exception(BackendError("the backend ended without an answer"))

    def connection_key(self) -> str:
        """One limit for all requests of a cell's model."""
        return self.model_name

    def max_connections(self) -> int:
        """As many at once as are worth a batch."""
        return 64

    async def aclose(self) -> None:
        """Release the model."""
        await self._backend.aclose()


def _message(message: ChatMessage) -> Message:
    if message.role == "tool":
        raise SpecError("a cell's model is asked without tools")
    return Message(message.role, message.text)


@modelapi(name="windowshift")
def windowshift() -> type[ModelAPI]:
    """The provider as Inspect finds it."""
    return CellModel
