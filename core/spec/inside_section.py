"""The `inside` of a spec: what is read inside the model, before, during and after training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from windowshift.core.contract.conditions import NO_PREFIX
from windowshift.core.contract.vector_job import ExtractTokens
from windowshift.core.spec.section import Count, Section


class InsidePrompts(Section):
    """Prompts that drift is read on, which neither D nor the evaluation has.

    Those of a `file`, all of them or the first `n`; without one, the next `n` of the spec's own source.
    """

    file: Annotated[str, Field(min_length=1)] | None = None
    n: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @property
    def drawn(self) -> int:
        """How many of the spec's own source."""
        return 0 if self.file is not None else self.n or 64


class DriftSection(Section):
    """How far a fine-tune moved the residual stream along the vectors, at every layer, against the base model.

    Over the first `prompts` evaluation prompts, or over all of `inside.prompts` where the spec has them; under each of
    `conditions` (of conditions.evaluate), at the last token of the prompt, over all of its tokens, or over the response
    that each model gave itself (`tokens`).
    """

    conditions: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = (NO_PREFIX,)
    prompts: Count = 64
    tokens: ExtractTokens = "last_prompt"


class GradientSection(Section):
    """Whether training on D pushes the residual stream along the vectors: the gradient of its loss, before any step.

    Over the first `examples` examples, as they are trained on, at each vector's layer in use, beside so many random
    unit directions (`random`) as a null. Controls of vectors are left out unless `inside.vectors` names them.
    """

    examples: Annotated[int, Field(ge=2, le=512)] = 64
    random: Annotated[int, Field(ge=10, le=1000)] = 100


class WatchedEntry(Section):
    """A text that is watched, an answer after its prompt, or a JSONL file of such chats; `group` draws some together.

    A line of the file is ``{"messages": [...]}`` that end with the answer, or ``{"prompt", "completion"}``.
    """

    prompt: str | None = None
    completion: Annotated[str, Field(min_length=1)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None
    group: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> WatchedEntry:
        inline = self.prompt is not None and self.completion is not None
        if inline == (self.file is not None) or (self.prompt is None) != (self.completion is None):
            raise ValueError("give a prompt and its completion, or a file of them")
        return self


class WatchSection(Section):
    """Texts whose log-probability is measured while every adapter is trained; none of them is learned.

    Before the first step, after every so many examples (`every`; left out, after each tenth of the training), and at
    the end.
    """

    texts: Annotated[list[WatchedEntry], Field(min_length=1, max_length=1000)]
    every: Count | None = None

    def steps(self, total: int, batch: int) -> list[int]:
        """The numbers of examples after which texts are read, in a training of so many, by so many a step."""
        if self.every is None:
            tenths = (-(-total * tenth // 10) for tenth in range(11))
            return sorted({min(total, -(-examples // batch) * batch) for examples in tenths})
        return [*range(0, total, self.every), total]


class InsideSection(Section):
    """What is read inside the model. `vectors` are names under `vectors`, controls too; left out, all of them."""

    vectors: Annotated[list[str], Field(min_length=1)] | None = None
    prompts: InsidePrompts | None = None
    drift: DriftSection | None = None
    gradient: GradientSection | None = None
    watch: WatchSection | None = None

    @model_validator(mode="after")
    def _something(self) -> InsideSection:
        if not self.along and self.watch is None:
            raise ValueError("say what is to be read:  drift: {},  gradient: {},  or  watch: {texts: [...]}")
        if self.vectors is not None and not self.along:
            raise ValueError("'vectors' are for drift and gradient: add  drift: {},  or leave them out")
        if self.prompts is not None and self.drift is None:
            raise ValueError("'prompts' are for drift: add  drift: {},  or leave them out")
        if self.prompts is not None and self.drift is not None and "prompts" in self.drift.model_fields_set:
            raise ValueError(
                "'drift.prompts' counts evaluation prompts, and 'prompts' are others: give their number as n"
            )
        return self

    @property
    def along(self) -> bool:
        """Whether anything is read along vectors."""
        return self.drift is not None or self.gradient is not None
