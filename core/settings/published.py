"""Published numbers, to stand beside a run's own; each belongs to the model it names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import yaml

from windowshift.core.contract.assets import asset


@dataclass(frozen=True, slots=True)
class PublishedFit:
    """Grouped fit and extreme elicitation of one model; the extremes are % differences."""

    model: str
    slope: float
    r2: float
    vs_base_pct: float
    vs_no_prefix_pct: float


@dataclass(frozen=True, slots=True)
class PublishedSpread:
    """CV by train condition (`base`: the untrained model) of one model on one generation condition's data."""

    model: str
    generate: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class PublishedSettings:
    """How the published models were trained; `course_examples` in the runs that follow training."""

    examples: int
    course_examples: int
    rank: int
    learning_rate: float
    batch_size: int
    epochs: int
    betas: tuple[float, float]
    checkpoint_every: int


@dataclass(frozen=True, slots=True)
class Published:
    """Everything published for one setting, of one behaviour."""

    behaviour: str
    settings: PublishedSettings
    grouped: tuple[PublishedFit, ...]
    cv: tuple[PublishedSpread, ...]

    def spread(self, generate: str) -> PublishedSpread | None:
        """The published CVs on one generation condition's data; None where there are none."""
        return next((spread for spread in self.cv if spread.generate == generate), None)


@cache
def published(setting: str, behaviour: str | None = None) -> Published | None:
    """The published numbers of a setting; None where nothing is published of this behaviour (None: of any)."""
    data = yaml.safe_load(asset("published.yaml").read_text(encoding="utf-8")).get(setting)
    if data is None or behaviour not in (None, data["behaviour"]):
        return None
    settings = data["settings"]
    first, second = settings.pop("betas")
    return Published(
        data["behaviour"],
        PublishedSettings(
            **{**settings, "learning_rate": float(settings["learning_rate"])},
            betas=(float(first), float(second)),
        ),
        tuple(PublishedFit(**row) for row in data["grouped"]),
        tuple(PublishedSpread(**row) for row in data["cv"]),
    )
