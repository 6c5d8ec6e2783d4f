"""Scales: how the scores of a behaviour are averaged, compared, bounded and written.

A behaviour declares its scale, and every number that is shown of it comes through here with its interval and
its label: nothing is inferred from scores. Cells are compared in up to three ways:

- the **link** scale, on which cells are subtracted, averaged and fitted: log2 of a ratio, plain, or log-odds;
- the **effect**, which is shown of a cell: the same, but for rates the difference in percentage points;
- the **change**, in words that people use: % of the other mean, else the effect.

Each has an interval of its own, from the same resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from windowshift.core.contract.number_format import NumberFormat

if TYPE_CHECKING:  # numpy costs a tenth of a second, and screens need scales before it
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Means = Floats | float

ScaleKind = Literal["ratio", "difference", "rate"]
Link = Literal["log2", "difference", "log_odds"]
Truncation = Literal["lower_bound", "counts", "missing"]
_LINKS: dict[ScaleKind, Link] = {"ratio": "log2", "difference": "difference", "rate": "log_odds"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How the scores of a behaviour compare. Made by `Scale.ratio`, `Scale.difference` or `Scale.rate`.

    Attributes:
        kind: what is compared: ratios of means, differences of means, or rates.
        low: the least score there can be; None: there is none.
        high: the largest one.
        truncation: what the score of a completion that was cut off counts as: a lower bound, like any other
            score, or a missing one.
        decimals: digits behind the point of a mean; None: as many as matter.
        percent: whether a rate is written in per cent.
        span: the effect at which the colour of a cell is full.
        higher_is_more: whether a higher score means more of the behaviour.
    """

    kind: ScaleKind
    low: float | None = None
    high: float | None = None
    truncation: Truncation = "counts"
    decimals: int | None = None
    percent: bool = False
    span: float = 1.0
    higher_is_more: bool = True

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"a scale goes up, not from {self.low:g} to {self.high:g}")
        if not (math.isfinite(self.span) and self.span > 0):
            raise ValueError(f"the span of a scale is a number above 0, not {self.span:g}")

    # -- making ---------------------------------------------------------------------------------

    @classmethod
    def ratio(
        cls,
        *,
        truncation: Truncation = "lower_bound",
        decimals: int | None = None,
        span: float = 1.0,
        higher_is_more: bool = True,
        low: float | None = 0.0,
        high: float | None = None,
    ) -> Scale:
        """Amounts of 0 and more, such as lengths: means compare by ratio, on log2."""
        return cls("ratio", low, high, truncation, decimals, False, span, higher_is_more)

    @classmethod
    def difference(
        cls,
        *,
        truncation: Truncation = "counts",
        decimals: int | None = None,
        span: float | None = None,
        higher_is_more: bool = True,
        low: float | None = None,
        high: float | None = None,
    ) -> Scale:
        """Scores such as grades: means compare by difference. `span` is a quarter of the bounds where there are any."""
        if span is None:
            span = 1.0 if low is None or high is None else (high - low) / 4
        return cls("difference", low, high, truncation, decimals, False, span, higher_is_more)

    @classmethod
    def rate(
        cls,
        *,
        truncation: Truncation = "counts",
        decimals: int | None = None,
        percent: bool = True,
        span: float = 0.5,
        higher_is_more: bool = True,
    ) -> Scale:
        """Yes or no (1, 0) and shares in between: shown in per cent, fitted on log-odds."""
        decimals = (1 if percent else 2) if decimals is None else decimals
        return cls("rate", 0.0, 1.0, truncation, decimals, percent, span, higher_is_more)

    @classmethod
    def from_json(cls, data: Any) -> Scale:
        """Read a scale as `to_json` writes it, or by the name of its kind alone.

        Raises:
            ValueError: it is none; the sentence says why.
        """
        given: Mapping[str, Any] = {"kind": data} if isinstance(data, str) else data
        if not isinstance(given, Mapping) or given.get("kind") not in _LINKS:
            raise ValueError(f"a scale is one of {', '.join(_LINKS)}, not {data!r}")
        makers: dict[str, Callable[..., Scale]] = {"ratio": cls.ratio, "difference": cls.difference, "rate": cls.rate}
        fixed = ("kind", "low", "high") if given["kind"] == "rate" else ("kind", "percent")
        try:
            return makers[given["kind"]](**{key: value for key, value in given.items() if key not in fixed})
        except TypeError as error:
            raise ValueError(f"a scale cannot be read: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)

    # -- scores ---------------------------------------------------------------------------------

    def counted(self, value: float | None, finish: str) -> float | None:
        """What a completion's score counts as in every mean; None: missing."""
        if finish == "failed" or (finish == "length" and self.truncation == "missing"):
            return None
        return value

    def problem(self, value: float) -> str | None:
        """Why a score cannot be one of this scale; None: it can."""
        if not math.isfinite(value):
            return f"{value} is not a score"
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            ends = ("−∞" if self.low is None else f"{self.low:g}", "∞" if self.high is None else f"{self.high:g}")
            return f"the score {value:g} lies outside {ends[0]} … {ends[1]}"
        return None

    # -- means ----------------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        """The scale on which cells are subtracted, averaged and fitted."""
        return _LINKS[self.kind]

    def forward(self, means: Means, n: Means) -> Floats:
        """Put means of `n` scores on the link scale.

        Log-odds (natural) add half a success and half a failure (Haldane 1956, Anscombe 1956), so that 0 of n and
        n of n stay finite; of infinitely many scores (draws, which are never 0 or 1) they add nothing. NaN: a ratio of
        what is not above 0, a rate outside [0, 1], no scores at all.
        """
        import numpy as np

        means = np.asarray(means, dtype=np.float64)
        if self.kind == "difference":
            return means
        if self.kind == "ratio":
            return np.asarray(np.log2(means, out=np.full(means.shape, np.nan), where=means > 0))
        count = np.broadcast_to(np.asarray(n, dtype=np.float64), means.shape)
        there = (means >= 0) & (means <= 1) & (count > 0)
        counted = np.isfinite(count)
        half, count = np.where(counted, 0.5, 0.0), np.where(counted, count, 1.0)
        wins, losses = means * count + half, (1 - means) * count + half
        odds = np.divide(wins, losses, out=np.full(means.shape, np.nan), where=there & (losses > 0) & (wins > 0))
        return np.asarray(np.log(odds, out=np.full(means.shape, np.nan), where=there))

    def back(self, values: Means, n: Means) -> Floats:
        """Return the means that `forward` puts at these values; a rate is cut to [0, 1]."""
        import numpy as np

        values = np.asarray(values, dtype=np.float64)
        if self.kind == "difference":
            return values
        if self.kind == "ratio":
            return np.asarray(np.exp2(values))
        with np.errstate(invalid="ignore"):
            share = np.exp(-np.logaddexp(0.0, -values))
        if np.isinf(n).all():
            return np.asarray(share)
        return np.asarray(np.clip(((np.asarray(n) + 1) * share - 0.5) / np.asarray(n), 0.0, 1.0))

    def linked(self, means: Means, n: Means, base: Means, base_n: Means) -> Floats:
        """Means against base means on the link scale."""
        return self.forward(means, n) - self.forward(base, base_n)

    def effect(self, means: Means, n: Means, base: Means, base_n: Means) -> Floats:
        """Means against base means as they are shown: on log2 for ratios, else their difference."""
        import numpy as np

        return self.linked(means, n, base, base_n) if self.kind == "ratio" else np.asarray(np.subtract(means, base))

    def change(self, means: Means, base: Means) -> Floats:
        """Means against base means in %, or their difference where means do not compare by ratio."""
        import numpy as np

        if self.kind != "ratio":
            return np.asarray(np.subtract(means, base))
        shape = np.broadcast(means, base).shape
        quotient = np.divide(means, base, out=np.full(shape, np.nan), where=np.asarray(base) > 0)
        return np.asarray(100 * (quotient - 1))

    def against(self, means: Means, other: Means) -> Floats:
        """One mean over another, or minus it where means do not compare by ratio: 1, or 0, where they are equal."""
        import numpy as np

        if self.kind != "ratio":
            return np.asarray(np.subtract(means, other))
        shape = np.broadcast(means, other).shape
        return np.asarray(np.divide(means, other, out=np.full(shape, np.nan), where=np.asarray(other) > 0))

    def spread(self, means: Floats) -> Floats:
        """Population standard deviation (ddof 0) over the last axis; CV, over the mean, for ratios."""
        import numpy as np

        deviation = means.std(axis=-1)
        if self.kind != "ratio":
            return np.asarray(deviation)
        centre = means.mean(axis=-1)
        return np.asarray(np.divide(deviation, centre, out=np.full(deviation.shape, np.nan), where=centre != 0))

    def distance(self, low: float, high: float, n_low: float, n_high: float) -> float:
        """How far one mean lies above another: natural log of their ratio, difference, or log-odds; NaN: undefined."""
        if self.kind == "difference":
            return high - low
        if self.kind == "ratio":
            return math.log(high / low) if low > 0 and high > 0 else math.nan
        return _log_odds(high, n_high) - _log_odds(low, n_low)

    def effect_of(self, mean: float, base: float) -> float | None:
        """One mean against another as it is shown; None where it is undefined. As `effect`, without numpy."""
        if self.kind != "ratio":
            return mean - base
        return math.log2(mean / base) if mean > 0 and base > 0 else None

    def spread_of(self, means: list[float]) -> float | None:
        """As `spread`, without numpy; None where it is undefined."""
        # By hand: the statistics module is exact, and thirty times slower.
        mean = sum(means) / len(means)
        deviation = math.sqrt(sum((one - mean) ** 2 for one in means) / len(means))
        if self.kind != "ratio":
            return deviation
        return deviation / mean if mean else None

    # -- words ----------------------------------------------------------------------------------

    @property
    def words(self) -> ScaleWords:
        """What its numbers are called and how they are written."""
        return _words(self)

    def level(self, effect: float) -> float:
        """Where an effect stands within -1 .. 1, full colour for less and for more of the behaviour."""
        return max(-1.0, min(1.0, effect / self.span)) * (1 if self.higher_is_more else -1)

    @property
    def ends(self) -> tuple[str, str]:
        """The effects at which colours are full, in words: less of the behaviour first."""
        if self.kind == "ratio":
            ends = (f"÷{2**self.span:.3g}", f"×{2**self.span:.3g}")
        else:
            show = NumberFormat(None, sign=True, factor=100.0 if self.percent else 1.0, narrow="matter")
            size = show.text(self.span, narrow=True)
            ends = (f"−{size}", f"+{size}")
        return ends if self.higher_is_more else (ends[1], ends[0])


def _log_odds(mean: float, n: float) -> float:
    if not (0 <= mean <= 1 and n > 0):
        return math.nan
    return math.log((mean * n + 0.5) / ((1 - mean) * n + 0.5))


@dataclass(frozen=True, slots=True)
class ScaleWords:
    """The labels of a scale's numbers, and how each kind of number is written.

    Attributes:
        uplift: the word for a cell against the base model.
        effect: what the effect is on: `log2 ratio`, `difference`, `percentage points`.
        effect_short: the same where there is little room.
        link: what the link scale is: `log2 ratio`, `difference`, `log-odds difference`.
        link_short: the same where there is little room.
        spread: `CV` or `sd`.
        spread_long: what a spread is of, in words.
        surprise: how surprising D is under a condition.
        surprise_axis: the same on the link scale.
        change: what the change is in, with the space before it.
        against: the word between two means that are compared by `Scale.against`.
        truncated: what the score of a completion counts as that was cut off.
        two: whether effect and link are two numbers, as for rates.
        value_format: how a mean is written; `effect_format`, `link_format` and so on likewise, and
            `spread_change_format` and `surprise_change_format` the difference of two.
    """

    uplift: str
    effect: str
    effect_short: str
    link: str
    link_short: str
    spread: str
    spread_long: str
    surprise: str
    surprise_axis: str
    change: str
    against: str
    truncated: str
    two: bool
    value_format: NumberFormat
    effect_format: NumberFormat
    link_format: NumberFormat
    change_format: NumberFormat
    spread_format: NumberFormat
    spread_change_format: NumberFormat
    kept_format: NumberFormat
    surprise_format: NumberFormat
    surprise_change_format: NumberFormat
    against_format: NumberFormat


_TRUNCATED: dict[Truncation, str] = {
    "lower_bound": "their scores are lower bounds",
    "counts": "their scores count as they are",
    "missing": "their scores count as missing",
}


@cache
def _words(scale: Scale) -> ScaleWords:
    link_format = NumberFormat(2, narrow=2, narrow_sign=True)
    kept = NumberFormat(2, narrow=2)
    if scale.kind == "ratio":
        return ScaleWords(
            uplift="uplift",
            effect="log2 ratio",
            effect_short="log2",
            link="log2 ratio",
            link_short="log2",
            spread="CV",
            spread_long="CV of the means",
            surprise="train_mean_ratio",
            surprise_axis="log2 train_mean_ratio",
            change="%",
            against="/",
            truncated=_TRUNCATED[scale.truncation],
            two=False,
            value_format=NumberFormat(scale.decimals, narrow="matter" if scale.decimals is None else "same"),
            effect_format=link_format,
            link_format=link_format,
            change_format=NumberFormat(1, sign=True, unit="%", narrow=0, narrow_sign=True, narrow_unit=" %"),
            spread_format=kept,
            spread_change_format=link_format,
            kept_format=kept,
            surprise_format=NumberFormat(2, narrow_before="×"),
            surprise_change_format=link_format,
            against_format=NumberFormat(2),
        )
    rate = scale.kind == "rate"
    if rate:
        factor, unit, points = (100.0, "%", " pp") if scale.percent else (1.0, "", "")
        value = NumberFormat(scale.decimals, unit=unit, factor=factor)
        effect = NumberFormat(scale.decimals, sign=True, unit=points, factor=factor)
        spread = NumberFormat(scale.decimals, unit=points, factor=factor)
        long, short = ("percentage points", "pp") if scale.percent else ("difference", "difference")
    else:
        decimals = 2 if scale.decimals is None else scale.decimals
        value = NumberFormat(scale.decimals)
        effect = NumberFormat(decimals, sign=True)
        spread = NumberFormat(decimals)
        long = short = "difference"
    return ScaleWords(
        uplift="difference",
        effect=long,
        effect_short=short,
        link="log-odds difference" if rate else "difference",
        link_short="log-odds" if rate else "difference",
        spread="sd",
        spread_long="standard deviation of the rates" if rate else "standard deviation of the means",
        surprise=f"distance of D, {'log-odds' if rate else 'difference'}",
        surprise_axis=f"distance of D, {'log-odds' if rate else 'difference'}",
        change=effect.unit,
        against="−",
        truncated=_TRUNCATED[scale.truncation],
        two=rate,
        value_format=value,
        effect_format=effect,
        link_format=NumberFormat(2, sign=True) if rate else effect,
        change_format=effect,
        spread_format=spread,
        spread_change_format=effect,
        kept_format=kept,
        surprise_format=NumberFormat(2, sign=True),
        surprise_change_format=NumberFormat(2, sign=True),
        against_format=effect,
    )
