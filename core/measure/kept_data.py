"""How many completions of a D that is chosen by scores are kept, of how many that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from windowshift.core.contract.records import ExperimentRow
from windowshift.core.store.reader import Reader


@dataclass(frozen=True, slots=True)
class KeptCount:
    """One seed's D of a generation condition with `keep:`: `kept` of `asked`, of which `unscored` could not be chosen.

    `ranges` are the lowest and the highest score by behaviour; None: no end.
    """

    generate: str
    seed: int
    asked: int
    kept: int
    unscored: int
    ranges: Mapping[str, tuple[float | None, float | None]]


def kept_counts(reader: Reader, experiment: ExperimentRow) -> tuple[KeptCount, ...]:
    """Every seed's D that is chosen, once it is; nothing where none is.

    Raises:
        StoreError: the store cannot be read.
    """
    jobs = {(one.part_generate, one.seed): one.job for one in reader.sources(experiment.id)}
    found = []
    for (generate, seed), number in sorted(jobs.items()):
        job = reader.job(number)
        if "kept" in job.inputs and "kept" in job.result:
            asked, kept, unscored = (int(job.result[key]) for key in ("of", "kept", "unscored_of_source"))
            ranges = {name: (ends[0], ends[1]) for name, ends in job.inputs["kept"].items()}
            found.append(KeptCount(generate, seed, asked, kept, unscored, ranges))
    return tuple(found)
