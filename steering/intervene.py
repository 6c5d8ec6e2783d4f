"""An intervention: forward passes of batches in which every row is pushed in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Steering
from windowshift.core.contract.proof import Proof, check_all
from windowshift.steering.points import LayerPoints
from windowshift.steering.push_tally import PushTally, PushTallyMark
from windowshift.steering.recipe import Push, Recipe, StageKey, resolve
from windowshift.steering.sending import sent
from windowshift.steering.spans import Spans
from windowshift.steering.stage import Stage, StageTable
from windowshift.steering.vector import SteeringVector

_EXACT = (torch.float32, torch.float64)


class SteeredRow(Protocol):
    """A row of a decode loop: its prompt's token ids, and how it is pushed."""

    @property
    def prompt(self) -> Sequence[int]:
        """Token ids."""
        ...

    @property
    def recipe(self) -> Recipe | None:
        """None: not at all."""
        ...


class Intervention:
    """One use of steering on a model: a training run, or a set of requests. It keeps its own proof.

    Call `recipe` once for what a row asks for, and then the intervention in place of the model::

        steer = Intervention(points, fingerprint=identity.fingerprint)
        recipes = [steer.recipe(example.steering) for example in batch]
        output = steer(recipes, Spans.sequences(prompts, completions, width), input_ids=ids)
        loss.backward(); ...
        steer.check()

    At each layer, ablations come first, then additions: h - (h.q)q for each unit direction q, then
    h + alpha * v. A batch in which no row asks for anything runs through the plain model.

    Args:
        points: the model's layers; shared by all interventions on it.
        fingerprint: of the model's weights; a vector of another model is refused. None compares nothing.
        load: reads a vector; files are read once.

    Attributes:
        points: as given.
        tally: what was done and asked so far.
    """

    def __init__(
        self,
        points: LayerPoints,
        *,
        fingerprint: str | None = None,
        load: Callable[[str], SteeringVector] = SteeringVector.load,
    ) -> None:
        self.points, self._fingerprint, self._load = points, fingerprint, load
        parameter = next(points.model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._vectors: dict[str, SteeringVector] = {}
        self._recipes: dict[tuple[str, tuple[Steering, ...]], Recipe] = {}
        self._pushes: list[Push] = []
        self._tables: dict[StageKey, StageTable] = {}
        self._last: tuple[list[Recipe], list[Stage]] = ([], [])
        self.tally = PushTally(self._device)
        self._seen: torch.dtype = self._dtype

    def recipe(self, steering: Sequence[Steering], group: str = "") -> Recipe:
        """What rows with this steering are to be given; equal steering in one group gives the same recipe.

        Raises:
            SpecError: a vector cannot be read, is damaged, or does not fit the model.
            BackendError: alpha is not a finite number.
        """
        key = (group, tuple(steering))
        if key not in self._recipes:
            decoder = self.points.decoder
            recipe = resolve(
                key[1],
                self._vector,
                fingerprint=self._fingerprint,
                width=decoder.width,
                layers=len(decoder.layers),
                number=len(self._recipes),
                first_slot=len(self._pushes) + 1,
            )
            self._recipes[key] = recipe
            self._grow(recipe)
        return self._recipes[key]

    def __call__(self, recipes: Sequence[Recipe], spans: Spans, **inputs: Any) -> Any:
        """Run the model on `inputs`, row i pushed by ``recipes[i]`` on its tokens in `spans`.

        Raises:
            BackendError: a layer was not reached, or gave out something else than a residual stream.
        """
        if not any(recipe.pushes for recipe in recipes):
            return self.points.model(**inputs)
        layers, visit = self.opened(recipes, spans)
        return self.points.run(layers, visit, inputs)

    def opened(self, recipes: Sequence[Recipe], spans: Spans) -> tuple[list[int], Callable[[int, Tensor], Tensor]]:
        """The layers of a pass to come, and what is to be done to their residual streams [rows, columns, width].

        For a pass that serves several interventions, each on rows of its own.
        """
        found = self._staged(list(recipes))
        by_layer: dict[int, list[Stage]] = {}
        for stage in found:
            by_layer.setdefault(stage.layer, []).append(stage)
            stage.open(spans, self.tally.tokens_asked)
            self.tally.ask(stage.slots)
        rows = (len(recipes), spans.prompt.shape[1])

        def visit(layer: int, hidden: Tensor) -> Tensor:
            if hidden.shape[:2] != rows:
                raise BackendError(f"steering was given {rows} tokens, and layer {layer} has {tuple(hidden.shape[:2])}")
            self.saw(hidden.dtype)
            for stage in by_layer[layer]:
                hidden = stage.apply(hidden, self.tally.measures)
                self.tally.called(stage.slots)
            return hidden

        return list(by_layer), visit

    def saw(self, dtype: torch.dtype) -> None:
        """The residual stream has numbers of this type: how finely a proof can compare."""
        self._seen = dtype

    def mark(self) -> PushTallyMark:
        """What was tallied so far, for `rewind`."""
        return self.tally.mark()

    def rewind(self, mark: PushTallyMark) -> None:
        """Forget a pass that did not come to its end and is run again; no recipe may have been added since."""
        self.tally.rewind(mark)

    def on_rows(self, rows: Sequence[SteeredRow], inputs: dict[str, Any], *, step: bool) -> Any:
        """One pass of a decode loop over its live rows: a `step` of one token each, or the prefill of their prompts.

        Raises:
            BackendError: as for a call.
        """
        plain = self.recipe(())
        recipes = [row.recipe or plain for row in rows]
        if not step:
            width = inputs["input_ids"].shape[1]
            spans = Spans.prefill([len(row.prompt) for row in rows], width, self._device)
        else:
            spans = Spans.step(len(rows), self._device)
        return self(recipes, spans, **inputs)

    def proofs(self, recipe: Recipe | None = None) -> list[Proof]:
        """What every push did so far, or those of one recipe; waits for the device."""
        said = self.tally.read()
        tally, asked = said.tensors
        eps = torch.finfo(self._seen).eps
        pushes = self._pushes if recipe is None else recipe.pushes
        found = []
        for push in pushes:
            tokens, moved, wanted, size = tally[:, push.slot].tolist()
            count = max(float(asked[push.slot]), 1.0)
            proof = Proof(
                vector=push.vector,
                layer=push.layer,
                alpha=push.alpha,
                ablate=push.ablate,
                calls=said.calls[push.slot],
                calls_asked=said.calls_asked[push.slot],
                tokens=int(tokens),
                tokens_asked=int(asked[push.slot]),
                change=moved / max(tokens, 1.0),
                change_asked=wanted / count,
                resolution=eps * size / count,
                tolerance=1e-3 if self._seen in _EXACT else 2e-2,
            )
            found.append(proof)
        return found

    def check(self, recipe: Recipe | None = None) -> list[Proof]:
        """Check that what happened is what was asked, and return the proofs.

        Raises:
            BackendError: a push did not fire, touched other tokens, or moved them by another amount.
        """
        proofs = self.proofs(recipe)
        check_all(proofs)
        if float(self.tally.measures[0, 0]):
            raise BackendError("steering changed rows that asked for none")
        return proofs

    def _vector(self, path: str) -> SteeringVector:
        if path not in self._vectors:
            self._vectors[path] = self._load(path)
        return self._vectors[path]

    def _staged(self, recipes: list[Recipe]) -> list[Stage]:
        """The stages of a batch, in an order that depends on each row's own pushes alone."""
        if recipes == self._last[0]:  # decoding asks for the same rows again and again
            return self._last[1]
        found = list(self.gathered(recipes).values())
        self._last = (recipes, found)
        return found

    def gathered(self, recipes: Sequence[Recipe]) -> dict[StageKey, Stage]:
        """The stages of a batch whose row i follows ``recipes[i]``, in the order in which they are applied."""
        slots: dict[StageKey, list[int]] = {}
        for recipe in dict.fromkeys(recipes):
            for push in recipe.pushes:
                slots.setdefault(push.stage, []).append(push.slot)
        # Tensors made in inference mode could not take part in a backward pass later.
        with torch.inference_mode(False), torch.no_grad():
            numbers = sent(torch.tensor([recipe.number for recipe in recipes]), self._device)
            return {key: self._tables[key].rows(numbers, tuple(slots[key]), self._dtype) for key in sorted(slots)}

    def _grow(self, recipe: Recipe) -> None:
        for push in recipe.pushes:
            if push.stage not in self._tables:
                self._tables[push.stage] = StageTable(push.layer, push.ablate, self._device)
            self._tables[push.stage].add(recipe.number, push)
        for table in self._tables.values():
            table.widen(recipe.number)
        self._pushes.extend(recipe.pushes)
        self.tally.grow(len(recipe.pushes))
