"""What is read inside a model, job after job: one that fails leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from windowshift.backends.local.causal_lm import CausalLM
from windowshift.backends.local.residual_gradient import differentiate
from windowshift.backends.local.residual_reading import project
from windowshift.backends.shared.refusal import library_reason
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.generation import Model
from windowshift.core.contract.inside import InsideEvent, InsideFailed, InsideJob, ProjectionJob


def looked(jobs: Sequence[InsideJob], model: Callable[[Model], CausalLM]) -> Iterator[list[InsideEvent]]:
    """Do the jobs, a pass at a time; `model` gives the loaded model."""
    for job in jobs:
        try:
            lm = model(job.model)
            yield []
            for some in project(lm, job) if isinstance(job, ProjectionJob) else differentiate(lm, job):
                yield [*some]
        except WindowshiftError as error:
            yield [InsideFailed(job.key, str(error))]
        except Exception as error:  # a library may raise anything, and the other jobs go on
            yield [InsideFailed(job.key, f"'{job.model.base}' could not be read: {library_reason(error)}")]
