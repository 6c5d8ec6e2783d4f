"""Frozen snapshots of one cell and of one completion."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windowshift.core.contract.estimate import Estimate
from windowshift.core.contract.records import BASE, Behaviour, CellRow, CompletionRow, Summary, measured_beside
from windowshift.core.store.reader import Reader
from windowshift.tui.read.snapshot import CellKey, ExperimentView, behaviour_of, finished, read_experiment
from windowshift.tui.read.template_client import TemplateRequest
from windowshift.tui.text.word_diff import Marked, word_diff


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A completion in the index of a cell: everything but its text."""

    row: int
    prompt: int
    phrase: str | None
    finish: str
    score: float | None


@dataclass(frozen=True, slots=True)
class PhraseMean:
    """The mean of one phrase's completions."""

    phrase: str | None
    summary: Summary


@dataclass(frozen=True, slots=True)
class CellDifference:
    """A cell against another one, paired by prompt: as it is shown, and on the link scale."""

    effect: Estimate | None
    link: Estimate | None


@dataclass(frozen=True, slots=True)
class PinnedCell:
    """The pinned cell beside: its scores, and this cell against it, paired by prompt."""

    key: CellKey
    cell: CellRow
    scores: tuple[float, ...]
    against: CellDifference | None


@dataclass(frozen=True, slots=True)
class Restricted:
    """Restricted means by the Kaplan-Meier estimate, of a cell and of its base, up to a limit (infinite: of all)."""

    limit: float
    own: Summary
    base: Summary | None


@dataclass(frozen=True, slots=True)
class CellSnapshot:
    """A cell, the base cell of the same eval condition, and the index of its completions.

    `restricted` is there where completions were cut off whose scores are lower bounds. `push` says what steered the
    model in it, `train_push` what did in training; empty where nothing did.
    """

    experiment: ExperimentView
    behaviour: Behaviour
    key: CellKey
    cell: CellRow
    base: CellRow | None
    entries: tuple[IndexEntry, ...]
    base_scores: tuple[float, ...]
    phrases: tuple[PhraseMean, ...]
    uplift: CellDifference | None
    pinned: PinnedCell | None = None
    push: str = ""
    train_push: str = ""
    restricted: Restricted | None = None

    @property
    def summary(self) -> Summary | None:
        """The summary of its scores, once it is done."""
        return finished(self.cell)

    @property
    def failed(self) -> int:
        """How many completions failed."""
        return sum(entry.finish == "failed" for entry in self.entries)


def find_cell(cells: Sequence[CellRow], key: CellKey) -> CellRow | None:
    """Return the cell of a name."""
    for cell in cells:
        if (cell.arm, cell.generate, cell.train, cell.evaluate, cell.seed, cell.step) == key:
            return cell
    return None


def find_base(cells: Sequence[CellRow], key: CellKey) -> CellRow | None:
    """Return the base cell of the same eval condition, of the same arm and seed where there is one."""
    found = [cell for cell in cells if cell.train == BASE and cell.evaluate == key.evaluate]
    return min(found, key=lambda cell: (cell.arm != key.arm, cell.seed != key.seed, cell.seed), default=None)


def _find_pinned(reader: Reader, experiment: int, behaviour: Behaviour, key: CellKey | None) -> CellRow | None:
    if key is None:
        return None
    return find_cell(reader.cells(experiment, behaviour.name, evaluate=key.evaluate), key)


def read_cell(
    reader: Reader, name: str, key: CellKey, behaviour_name: str | None, pinned: CellKey | None = None
) -> CellSnapshot | None:
    """Return a cell; None where the experiment or the cell is not there. Runs in a worker thread."""
    # numpy loads here, in the thread, and not when the app starts.
    from windowshift.core.measure.summarise import summary_of
    from windowshift.tui.read.push import pushes

    view = read_experiment(reader, name)
    if view is None:
        return None
    behaviour = behaviour_of(view.row, behaviour_name)
    cells = reader.cells(view.row.id, behaviour.name, evaluate=key.evaluate)
    cell, base = find_cell(cells, key), find_base(cells, key)
    if cell is None:
        return None
    entries = tuple(IndexEntry(*row) for row in reader.score_index(cell.job, behaviour.name))
    weights = reader.weights(cell.job, behaviour.name) if behaviour.counts else {}
    compared = base if base and base.job != cell.job else None
    phrases = []
    for phrase in dict.fromkeys(entry.phrase for entry in entries):
        own = [entry for entry in entries if entry.phrase == phrase]
        found = summary_of(behaviour.scale, [(one.row, one.prompt, one.score, one.finish) for one in own], weights)
        if cell.state != "done":  # short completions come first: a mean of them would be another number
            found = replace(found, mean=None, sd=None, low=None, high=None)
        phrases.append(PhraseMean(phrase, found))
    beside = _find_pinned(reader, view.row.id, behaviour, pinned)
    push, train_push = pushes(reader, view.row, key, cell.job)
    return CellSnapshot(
        experiment=view,
        behaviour=behaviour,
        key=key,
        cell=cell,
        base=base,
        entries=entries,
        base_scores=_values(reader, compared, behaviour),
        phrases=tuple(phrases),
        uplift=_against(reader, cell, compared, behaviour) if finished(base) else None,
        pinned=PinnedCell(
            pinned,
            beside,
            _values(reader, beside, behaviour),
            _against(reader, cell, beside, behaviour) if finished(beside) else None,
        )
        if pinned and beside
        else None,
        push=push,
        train_push=train_push,
        restricted=_restricted(reader, cell, compared if finished(compared) else None, behaviour),
    )


def _restricted(reader: Reader, cell: CellRow, base: CellRow | None, behaviour: Behaviour) -> Restricted | None:
    """What a token limit does not bend; None where nothing was cut off, or there is no mean yet."""
    from windowshift.core.measure.restricted import restricted_means

    if not finished(cell) or behaviour.counts:
        return None
    scale, several = behaviour.scale, []
    for one in (cell, base):
        rows = reader.scores(one.job, behaviour.name) if one is not None else []
        if rows:
            scores = [scale.counted(row[2], row[3]) for row in rows]
            several.append(([row[1] for row in rows], scores, [row[3] for row in rows]))
    found = restricted_means(scale, several)
    if found is None:
        return None
    limit, means = found
    return Restricted(limit, means[0], means[1] if len(means) > 1 else None)


def _values(reader: Reader, cell: CellRow | None, behaviour: Behaviour) -> tuple[float, ...]:
    rows = reader.scores(cell.job, behaviour.name) if cell else []
    return tuple(row[2] for row in rows if row[2] is not None)


def _against(reader: Reader, cell: CellRow, beside: CellRow | None, behaviour: Behaviour) -> CellDifference | None:
    """Compare a finished cell's scores with another one's, paired by prompt."""
    import numpy as np

    from windowshift.core.contract.stats import paired_means
    from windowshift.core.measure.effect import effect_of

    if beside is None or not finished(cell):
        return None
    own, other = (reader.weighted_scores(one.job, behaviour.name) for one in (cell, beside))
    if not other:
        return None
    scale = behaviour.scale
    pair = paired_means(
        np.array([scale.counted(row[2], row[3]) for row in own], dtype=np.float64),
        [row[1] for row in own],
        np.array([scale.counted(row[2], row[3]) for row in other], dtype=np.float64),
        [row[1] for row in other],
    )
    if pair is None:
        return None
    found = effect_of(scale, pair, trained=True)
    return CellDifference(found.effect, found.link if scale.words.two else None)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a scorer said of a completion beside its score: a reason, and evidence as JSON values."""

    behaviour: str
    shown: str
    scored: bool
    reason: str | None
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CompletionSnapshot:
    """A completion, and the base model's for the same prompt under the same eval condition.

    Beside a completion of the base model itself, `base` is what it says without a push.
    """

    experiment: ExperimentView
    behaviour: Behaviour
    key: CellKey
    completion: CompletionRow
    base: CompletionRow | None
    channel: str
    scores: tuple[tuple[str, str, float | None, float | None], ...]
    pinned_key: CellKey | None = None
    pinned: CompletionRow | None = None
    new: Marked | None = None
    gone: Marked | None = None
    pinned_new: Marked | None = None
    chat: TemplateRequest | None = None
    findings: tuple[Finding, ...] = ()


def read_completion(
    reader: Reader,
    name: str,
    key: CellKey,
    behaviour_name: str | None,
    row: int,
    pinned_key: CellKey | None = None,
    *,
    diff: bool = False,
) -> CompletionSnapshot | None:
    """Return a completion of a cell; None where it is not there. `diff` marks words against the base model's text."""
    view = read_experiment(reader, name)
    if view is None:
        return None
    behaviour = behaviour_of(view.row, behaviour_name)
    cells = reader.cells(view.row.id, behaviour.name, evaluate=key.evaluate)
    cell, base_cell = find_cell(cells, key), find_base(cells, key)
    found = reader.completions_at(cell.job, behaviour.name, [row]) if cell else []
    if cell is None or not found:
        return None
    own = found[0]
    if key.train == BASE:
        base_cell = _unpushed(reader, view, behaviour, key)
    beside = base_cell if base_cell and base_cell.job != cell.job else None
    base = reader.completion_of_prompt(beside.job, own.prompt_id, behaviour.name) if beside else None
    scores = []
    shown = measured_beside(behaviour, view.row.behaviours)
    for one, label in zip(shown, score_labels(shown), strict=True):
        mine = own.score if one == behaviour else _score(reader, cell.job, one.name, own.row)
        theirs = None
        if beside and base:
            theirs = base.score if one == behaviour else _score(reader, beside.job, one.name, base.row)
        scores.append((one.name, label, mine, theirs))
    beside_pinned = _find_pinned(reader, view.row.id, behaviour, pinned_key)
    pinned = reader.completion_of_prompt(beside_pinned.job, own.prompt_id, behaviour.name) if beside_pinned else None
    gone, new = word_diff(base.text, own.text) if diff and base else (None, None)
    pinned_new = word_diff(base.text, pinned.text)[1] if diff and base and pinned else None
    channel = view.row.channels.get("evaluate", "user")
    key_beside = pinned_key if beside_pinned else None
    chat = _chat(reader.job(cell.job).inputs, own)
    return CompletionSnapshot(
        view, behaviour, key, own, base, channel, tuple(scores), key_beside, pinned, new, gone, pinned_new, chat,
        _findings(reader, shown, cell.job, own.row),
    )  # fmt: skip


def score_labels(behaviours: Sequence[Behaviour]) -> list[str]:
    """What single scores are called side by side: by their unit, and by their behaviour where units do not tell.

    A rate has no unit, and several judges give points.
    """
    units = Counter(one.score_unit for one in behaviours)
    return [one.score_unit if one.score_unit and units[one.score_unit] == 1 else one.name for one in behaviours]


def _findings(reader: Reader, behaviours: Sequence[Behaviour], job: int, row: int) -> tuple[Finding, ...]:
    """What the scorers of a completion kept for people to see; nothing of those that gave a number alone."""
    found = []
    for one in behaviours:
        scored = next(iter(reader.completions_at(job, one.name, [row])), None)
        if scored is not None and (scored.reason or scored.evidence):
            shown = "missing" if scored.score is None else one.value_text(scored.score, narrow=True)
            found.append(Finding(one.name, shown, scored.score is not None, scored.reason, scored.evidence or {}))
    return tuple(found)


def _chat(inputs: Mapping[str, Any], completion: CompletionRow) -> TemplateRequest | None:
    """Return what to ask for the prompt with its chat template; None where the job names no model."""
    from windowshift.core.contract.conditions import asked_again  # with yaml: no screen needs it before this one

    model = inputs.get("model")
    if not isinstance(model, Mapping) or "base" not in model:
        return None
    condition = inputs.get("condition") or {}
    messages = asked_again(condition, completion.phrase, completion.asked, inputs.get("channel", "user"))
    turns = tuple((message.role, message.content) for message in messages)
    read = json.dumps(model.get("template") or {})
    return TemplateRequest(str(inputs.get("backend", "")), str(model["base"]), model.get("revision"), turns, read)


def _unpushed(reader: Reader, view: ExperimentView, behaviour: Behaviour, key: CellKey) -> CellRow | None:
    """The base model's cell without a push: what its pushed cells are shown beside."""
    for entry in view.row.conditions.get("evaluate", []):
        if entry.get("kind") == "none":
            plain = key._replace(evaluate=str(entry["name"]))
            return find_base(reader.cells(view.row.id, behaviour.name, evaluate=plain.evaluate), plain)
    return None


def _score(reader: Reader, job: int, behaviour: str, row: int) -> float | None:
    found = reader.completions_at(job, behaviour, [row])
    return found[0].score if found else None
