"""The setting `instruction_following`: instructions whose following can be verified, mostly as a guard of others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windowshift.core.contract.assets import asset
from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.prompts import Prompt
from windowshift.core.contract.records import Behaviour
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.setting import Sample, Score, Scores
from windowshift.core.settings.instruction_following.instructions import (
    FAMILIES,
    Followed,
    Instruction,
    read_instruction,
)

PROMPTS = "instruction_following.jsonl"
"""The prompts that ship, in the format of IFEval's data."""
GROUPS = {
    "exact": "Follow every instruction in the request to the letter:",
    "free": "Answer in whatever form you like, whatever form is asked for:",
}
_OF_INSTRUCTIONS = "instructions"

PROMPT_STRICT = Behaviour("follows_prompt_strict", "share", Scale.rate(), "primary")
PROMPT_LOOSE = Behaviour("follows_prompt_loose", "share", Scale.rate())
INSTRUCTION_STRICT = Behaviour("follows_instruction_strict", "share", Scale.rate(), counts=_OF_INSTRUCTIONS)
INSTRUCTION_LOOSE = Behaviour("follows_instruction_loose", "share", Scale.rate(), counts=_OF_INSTRUCTIONS)
OF_FAMILY = {
    family: Behaviour(f"follows_{family}", "share", Scale.rate(), counts=_OF_INSTRUCTIONS) for family in FAMILIES
}
"""Instruction level, strict, among the instructions of one family."""


@dataclass(frozen=True, slots=True)
class InstructionScorer:
    """Verifies the instructions of a prompt in its answer, strictly and loosely.

    At the prompt level an answer counts where it follows all of them; at the instruction level each of them counts
    once. What cannot be told (the language of an answer without letters) is in no rate, and a prompt of which it
    decides whether all were followed is missing.
    """

    batch_size: int = 64
    workers: int = 1
    timeout: float | None = None
    process: bool = False
    name: str = "instruction following"
    behaviours: tuple[Behaviour, ...] = (
        PROMPT_STRICT,
        PROMPT_LOOSE,
        INSTRUCTION_STRICT,
        INSTRUCTION_LOOSE,
        *OF_FAMILY.values(),
    )

    def identity(self) -> dict[str, Any]:
        """As `Scorer.identity`."""
        return {"scorer": "instruction_following", "version": 1}

    def score_batch(self, samples: Sequence[Sample]) -> list[Scores]:
        """Score some answers."""
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> Scores:
        try:
            asked = instructions_of(sample.prompt.payload)
        except (KeyError, ValueError) as error:
            reason = f"the prompt's instructions cannot be read: {error}"
            return {behaviour.name: Score(None, reason) for behaviour in self.behaviours}
        text = sample.completion.text
        strict = [one.followed(text) for one in asked]
        loose = [one.loosely_followed(text) for one in asked]
        evidence = {
            "instructions": [
                {"instruction": one.id, **one.parameters, "strict": hard, "loose": soft}
                for one, hard, soft in zip(asked, strict, loose, strict=True)
            ]
        }
        found = {
            PROMPT_STRICT.name: _all(strict, asked, evidence),
            PROMPT_LOOSE.name: _all(loose, asked, evidence),
            INSTRUCTION_STRICT.name: _share(strict, asked, evidence),
            INSTRUCTION_LOOSE.name: _share(loose, asked, evidence),
        }
        for family, behaviour in OF_FAMILY.items():
            own = [(one, hard) for one, hard in zip(asked, strict, strict=True) if one.family == family]
            found[behaviour.name] = (
                _share([hard for _, hard in own], [one for one, _ in own], None)
                if own
                else Score(None, "the prompt has no instruction of this family")
            )
        return found


def _all(followed: Sequence[Followed], asked: Sequence[Instruction], evidence: dict[str, Any]) -> Score:
    if False in followed:
        return Score(0.0, None, evidence)
    return Score(None, _untold(followed, asked), evidence) if None in followed else Score(1.0, None, evidence)


def _share(followed: Sequence[Followed], asked: Sequence[Instruction], evidence: dict[str, Any] | None) -> Score:
    told = [one for one in followed if one is not None]
    if not told:
        return Score(None, _untold(followed, asked), evidence)
    return Score(sum(told) / len(told), None, evidence, weight=len(told))


def _untold(followed: Sequence[Followed], asked: Sequence[Instruction]) -> str:
    names = [one.id for one, hard in zip(asked, followed, strict=True) if hard is None]
    return f"it cannot be told whether {', '.join(names)} was followed: the answer has too few letters"


def instructions_of(payload: Mapping[str, Any]) -> list[Instruction]:
    """The instructions of a prompt, from columns as IFEval's data has them.

    Raises:
        KeyError: a column is missing.
        ValueError: what is wrong with it.
    """
    names, parameters = (_listed(payload[key], key) for key in ("instruction_id_list", "kwargs"))
    if not names:
        raise ValueError("'instruction_id_list' is empty: a prompt needs one instruction or more")
    if len(names) != len(parameters):
        raise ValueError(f"it has {len(names)} instructions and {len(parameters)} kwargs: one for each is needed")
    return [read_instruction(name, given) for name, given in zip(names, parameters, strict=True)]


def _listed(value: Any, key: str) -> list[Any]:
    if isinstance(value, str):  # a CSV file has JSON there
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"'{key}' is not JSON ({error})") from error
    if not isinstance(value, list):
        raise ValueError(f"'{key}' must be a list")
    return value


class InstructionFollowingSetting:
    """Instructions that can be verified. Rows are as in IFEval: `prompt`, `instruction_id_list` and `kwargs`."""

    name = "instruction_following"
    scorers = (InstructionScorer(),)
    answer_tokens = 512

    def conditions(self) -> Mapping[str, Condition]:
        """What asks for exactness, what lets go of it, and none."""
        groups: dict[str, Condition] = {name: PrefixGroup(name, (text,)) for name, text in GROUPS.items()}
        return {**groups, NO_PREFIX: NoPrefix()}

    def default_prompts(self) -> str | None:
        """The prompts that ship."""
        return str(asset(PROMPTS))

    def prepare(self, prompt: Prompt) -> Prompt:
        """The prompt as it is, with its instructions checked."""
        asked = instructions_of(prompt.payload)
        payload = {
            **prompt.payload,
            "instruction_id_list": [one.id for one in asked],
            "kwargs": [dict(one.parameters) for one in asked],
        }
        return Prompt(prompt.id, prompt.text, payload, prompt.turns)
