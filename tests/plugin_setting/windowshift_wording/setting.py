"""The setting `wording`: each prompt has a pattern that its answer should match, and one that it should not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores
from windowshift.core.spec.section import Positive, Section

KEPT = Behaviour("kept", "share", Scale.rate(), "positive")
SLIPPED = Behaviour("slipped", "share", Scale.rate(), "negative")


class Options(Section):
    """What may stand beside the name: ``setting: {name: wording, seconds: 5}``."""

    ignore_case: bool = True
    seconds: Positive = 2


@dataclass(frozen=True, slots=True)
class WordingScorer:
    """Looks for the patterns of a prompt in its answer.

    A pattern is somebody's own and may search for ever, so each worker is a process, which ends at the time limit.
    """

    ignore_case: bool = True
    timeout: float | None = 2.0
    batch_size: int = 8
    workers: int = 1
    process: bool = True
    name: str = "wording"
    behaviours: tuple[Behaviour, ...] = (KEPT, SLIPPED)

    def identity(self) -> dict[str, Any]:
        """What changes a score; how many are scored at once does not."""
        return {"scorer": "wording", "version": 1, "ignore_case": self.ignore_case, "seconds": self.timeout}

    def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
        """Score some answers. What is raised here becomes a missing score with that reason."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Scores:
        payload, text = sample.prompt.payload, sample.completion.text
        return {
            KEPT.name: self._find(payload["wanted"], text),
            SLIPPED.name: self._find(payload.get("unwanted"), text),
        }

    def _find(self, pattern: str | None, text: str) -> Score:
        if pattern is None:
            return Score(None, "the prompt names nothing unwanted")  # missing, never a 0
        found = re.search(pattern, text, re.IGNORECASE if self.ignore_case else 0)
        return Score(float(found is not None), None, {"pattern": pattern, "found": found.group() if found else None})


class WordingSetting:
    """Answers with the wanted words, and without the unwanted ones. Rows have `question`, `wanted` and `unwanted`."""

    name = "wording"
    Options = Options

    def __init__(self, options: Options) -> None:
        self.scorers = (WordingScorer(options.ignore_case, float(options.seconds)),)

    def conditions(self) -> Mapping[str, Condition]:
        """From few words to many, then none."""
        brief = PrefixGroup("brief", ("Respond briefly:",))
        full = PrefixGroup("full", ("Answer the following thoroughly:",))
        return {"brief": brief, "full": full, NO_PREFIX: NoPrefix()}

    def default_prompts(self) -> str | None:
        """The file that comes with the package."""
        return str(Path(__file__).with_name("prompts.jsonl"))

    def prepare(self, prompt: Prompt) -> Prompt:
        """The question as it is asked; a row with a broken pattern is refused before anything runs."""
        for pattern in (prompt.payload["wanted"], prompt.payload.get("unwanted")):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
        return Prompt(prompt.id, f"Tell me about {prompt.text}.", prompt.payload)
