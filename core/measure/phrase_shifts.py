"""Phrases as a sample: how far the phrases of a group move the mean of its condition, by variance components.

A group stands for all the ways to say the same. Its few phrases shift the mean under its condition, in the base model
and in the fine-tunes alike, which cancels where a cell is compared with its base, and does not where conditions are
compared with each other (train_mean_ratio, spreads, slopes). The shifts of all groups of a grid have one variance,
estimated by analysis of variance: from what a prompt scores under a condition, averaged over models, goes what it
scores under the others, so that easy prompts do not pass for a strong phrase, and what is left is compared between the
phrases of the condition and within them. A group of G phrases then has the variance of one phrase over G. A condition
with one phrase, or none, stands for itself. (A mixed model with prompts and phrases crossed would estimate the same
variance by likelihood; statsmodels has one, takes two seconds to import, and minutes for a grid.)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windowshift.core.contract.confidence import Z, student_t
from windowshift.core.contract.scale import Scale
from windowshift.core.contract.stats import PHRASES, Floats, ratio
from windowshift.core.measure.grid import Numbers


def phrase_shifts(
    scale: Scale,
    conditions: Mapping[str, Iterable[int]],
    sums: Floats,
    counts: Floats,
    phrases: Numbers,
    resamples: int,
    seed: int,
) -> dict[str, Floats]:
    """Draws of the shift of each condition whose group has several phrases, on the link scale, (resamples,).

    Args:
        scale: of the scores.
        conditions: by name, the rows of the tables below that were sampled under it.
        sums: (rows, prompts), as in `Grid`; n 0 in what is not done.
        counts: likewise.
        phrases: likewise.
        resamples: how many draws.
        seed: of the draws; those of a condition go by its name.
    """
    scores, asked = {}, {}
    for name, rows in conditions.items():
        chosen = [row for row in rows if counts[row].any()]
        found = _scores(scale, sums[chosen], counts[chosen]) if chosen else None
        if found is not None:
            scores[name], asked[name] = found, phrases[chosen].max(axis=0)
    groups = {name: len(np.unique(own[own > 0])) for name, own in asked.items()}
    groups = {name: count for name, count in groups.items() if count > 1}
    names, table = list(scores), np.array(list(scores.values()))
    found_squares = expected = degrees = 0.0
    for name, count in groups.items():
        others = np.array([other != name for other in names])
        beside = _mean(table[others]) if others.any() else np.zeros(table.shape[1])
        layout = _Layout.of(asked[name], np.isfinite(scores[name] - beside))
        if layout is None:
            continue
        # Under other conditions, the same prompts may share a phrase too.
        share = 1 / max(1, int(others.sum()))
        own = layout.expected(asked[name]) + share**2 * sum(
            layout.expected(asked[other]) for other in names if other != name
        )
        found_squares += (count - 1) * layout.between(scores[name] - beside)
        expected += (count - 1) * own
        degrees += (count - 1) * (1 - 1 / len(names) if len(names) > 1 else 1)
    variance = max(0.0, found_squares / expected) if expected > 0 else 0.0
    if not variance:
        return {}
    wide = student_t(max(1.0, degrees)) / Z
    return {name: wide * np.sqrt(variance / count) * _noise(name, resamples, seed) for name, count in groups.items()}


def _noise(name: str, resamples: int, seed: int) -> Floats:
    return np.asarray(np.random.default_rng([seed, PHRASES, zlib.crc32(name.encode())]).standard_normal(resamples))


def _scores(scale: Scale, sums: Floats, counts: Floats) -> Floats | None:
    """What each prompt scores under a condition on the link scale, over its rows: (prompts,); NaN where it has none."""
    means = ratio(sums.sum(axis=1), counts.sum(axis=1))
    steep = _steepness(scale, means)
    own = np.isfinite(steep)
    if not own.any():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mean((sums[own] / counts[own] - means[own, None]) * steep[own, None])


def _mean(table: Floats) -> Floats:
    """The mean of each column over the rows that have a number; NaN where none has."""
    there = np.isfinite(table)
    return ratio(np.where(there, table, 0).sum(axis=0), there.sum(axis=0).astype(np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Which of a condition's phrases each of its prompts was asked by."""

    kept: NDArray[np.bool_]
    which: NDArray[np.intp]
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, asked: Numbers, there: NDArray[np.bool_]) -> _Layout | None:
        """None where there are not several phrases with several prompts."""
        kept = there & (asked > 0)
        names, which, sizes = np.unique(asked[kept], return_inverse=True, return_counts=True)
        return cls(kept, which, sizes) if 1 < len(names) < len(which) else None

    def between(self, values: Floats) -> float:
        """The variance between phrases, what chance within them would make of it taken out."""
        score, n, groups = values[self.kept], len(self.which), len(self.sizes)
        centres = np.bincount(self.which, weights=score) / self.sizes
        within = float(((score - centres[self.which]) ** 2).sum()) / (n - groups)
        squares = float((self.sizes * (centres - score.mean()) ** 2).sum()) / (groups - 1)
        each = (n - float((self.sizes**2).sum()) / n) / (groups - 1)
        return (squares - within) / each

    def expected(self, asked: Numbers) -> float:
        """What `between` gives for phrases of variance 1, asked like this."""
        return sum(self.between((asked == name).astype(np.float64)) for name in np.unique(asked[asked > 0]))


def _steepness(scale: Scale, means: Floats) -> Floats:
    """How far the link moves with a mean; NaN where it has no place there."""
    if scale.kind == "difference":
        return np.where(np.isfinite(means), 1.0, np.nan)
    by = means * np.log(2) if scale.kind == "ratio" else means * (1 - means)
    return np.asarray(np.divide(1.0, by, out=np.full(means.shape, np.nan), where=by > 0))


def shifted(scale: Scale, draws: Floats, shift: Floats) -> Floats:
    """Draws of means, (resamples, any), moved on the link scale by a shift, (resamples,)."""
    if scale.kind == "ratio":
        return np.asarray(draws * np.exp2(shift)[:, None])
    if scale.kind == "difference":
        return np.asarray(draws + shift[:, None])
    return np.asarray(scale.back(scale.forward(draws, np.inf) + shift[:, None], np.inf))
