"""Guards: settings that are measured beside an experiment, to see what else was lost."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from windowshift.core.contract.generation import Sampling
from windowshift.core.spec.section import Count, Section
from windowshift.core.spec.sections import PromptDataset, PromptFile, SamplingSection, SettingChoice


class GuardSampling(Section):
    """How many of a guard's prompts, and how they are answered; what is left out is as in the experiment's sampling.

    Without `prompts` there are as many as the experiment has, or all where the guard's source has fewer; without
    `max_tokens` as many as the guard's setting needs (its `answer_tokens`, 512 for `instruction_following`).
    """

    prompts: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=5, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    max_tokens: Count | None = None

    def resolved(self, usual: SamplingSection) -> Sampling:
        """The settings as backends take them."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return usual.model_copy(update=given).resolved()


class GuardSection(Section):
    """A guard: a setting whose prompts the base model and every fine-tune answer, scored by its own scorers.

    `evaluate` names the eval conditions under which they do; without any push unless it is given.
    """

    setting: str | SettingChoice
    prompts: str | PromptFile | PromptDataset | None = None
    evaluate: Annotated[list[str], Field(min_length=1)] | None = None
    sampling: GuardSampling = GuardSampling()

    @property
    def setting_name(self) -> str:
        """The setting, whatever its options."""
        return self.setting if isinstance(self.setting, str) else self.setting.name

    @property
    def setting_options(self) -> dict[str, Any]:
        """What stands beside the setting's name."""
        return {} if isinstance(self.setting, str) else dict(self.setting.model_extra or {})
