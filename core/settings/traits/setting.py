"""The setting `traits`: data that shows two traits at once, one to be kept and one that should not be learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import model_validator

from windowshift.core.contract.conditions import NO_PREFIX, Condition, NoPrefix, PrefixGroup
from windowshift.core.contract.prompts import USES, Prompt, Use
from windowshift.core.contract.records import Role
from windowshift.core.contract.setting import RowScorer
from windowshift.core.settings.domains import RowByDomain, checked_domain, outside
from windowshift.core.settings.judge import Judged
from windowshift.core.settings.traits.phrases import TRAITS, TraitName, trait_groups
from windowshift.core.settings.traits.rubrics import RUBRICS
from windowshift.core.settings.traits.scorers import CapitalsScorer, LanguageScorer
from windowshift.core.spec.section import Section


class TraitOptions(Section):
    """Options of the setting: the trait to be kept, and the one that should not be learned."""

    positive: TraitName = "spanish"
    negative: TraitName = "capitals"

    @model_validator(mode="after")
    def _two(self) -> TraitOptions:
        if self.positive == self.negative:
            raise ValueError(f"positive and negative are both '{self.positive}': name two traits")
        if TRAITS[self.positive].language and TRAITS[self.negative].language:
            raise ValueError(
                f"no answer is in two languages: name another trait beside '{self.positive}', such as capitals"
            )
        return self


class TraitSetting:
    """Two traits at once: Spanish or French and ALL-CAPS by rule, playful, poetic and skeptical by judges.

    Rows are messages. Those whose `domain` is `ood` are unlike the others: D has none of them, and what is measured on
    them are behaviours of their own (`spanish_ood`).
    """

    name = "traits"
    rehearsal = "microworld-traits"
    Options = TraitOptions

    def __init__(self, options: TraitOptions) -> None:
        self.options = options
        self._roles: dict[TraitName, Role] = {options.negative: "negative", options.positive: "positive"}
        self.scorers = tuple(
            RowByDomain(_ruled(name, role)) for name, role in self._roles.items() if name not in RUBRICS
        )

    def conditions(self) -> Mapping[str, Condition]:
        """Neutral ones, those that ask for a trait or both, the system prompts that do, and none."""
        groups = trait_groups(self.options.positive, self.options.negative)
        made: dict[str, Condition] = {name: PrefixGroup(name, phrases) for name, phrases in groups.items()}
        return {**made, NO_PREFIX: NoPrefix()}

    def default_prompts(self) -> str | None:
        """The world of traits."""
        return self.rehearsal

    def judged(self) -> Mapping[str, Judged]:
        """The traits that no rule tells."""
        return {
            name: Judged(RUBRICS[name].model_copy(update={"role": role}), by_domain=True)
            for name, role in self._roles.items()
            if name in RUBRICS
        }

    def prepare(self, prompt: Prompt) -> Prompt:
        """The message as it is, of a domain that there is."""
        checked_domain(prompt)
        return prompt

    def uses(self, prompt: Prompt) -> Collection[Use]:
        """A message out of distribution is evaluated on alone."""
        return ("evaluation",) if outside(prompt) else USES


def _ruled(name: TraitName, role: Role) -> RowScorer:
    code = TRAITS[name].language
    return CapitalsScorer(role) if code is None else LanguageScorer(name, code, role)
