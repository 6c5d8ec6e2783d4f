"""A number with its interval and what it rests on: without numpy, so that screens have it before they load that."""

from __future__ import annotations

from dataclasses import dataclass

ONE_RUN = "one training run; run-to-run noise is not included"
"""What every page says once that shows fine-tunes of one seed."""


def runs_note(seeds: int) -> str:
    """What intervals say of so many training runs a row; nothing where nothing is trained."""
    if seeds < 2:
        return ONE_RUN if seeds else ""
    return f"{seeds} training runs a row: the intervals of pooled numbers include the noise between them"


def counts_text(prompts: int | None, completions: int, seeds: int, *, narrow: bool = False) -> str:
    """What a number rests on, as it stands behind `n`.

    In narrow places one completion a prompt, and one seed, which the page says elsewhere, go without saying.
    """
    if prompts is None:
        return f"{completions:,}" if narrow else _many(completions, "completion")
    parts = [_many(prompts, "prompt")]
    if not narrow or completions != prompts:
        parts.append(_many(completions, "completion"))
    return ", ".join([*parts, *([_many(seeds, "seed")] if seeds > narrow else [])])


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval (None where it is undefined) and what it rests on.

    The interval holds the number: where a recipe puts an end on its other side, the end is the number itself.

    `n` counts completions for a mean or a comparison, points for a fit, conditions for a spread. `prompts` counts the
    prompts behind it, None where it is over points or conditions alone. `seeds` counts the training runs that the
    interval allows for: 1 where there is one, whose noise it cannot know, 0 for what no training is behind.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    prompts: int | None = None
    seeds: int = 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high), or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)
