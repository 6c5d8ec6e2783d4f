"""The vector lane: steering vectors that can be made now, in one call to a backend; and matched doses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from windowshift.core.contract.artifacts import DamagedError
from windowshift.core.contract.backend import Backend, SteeringBackend
from windowshift.core.contract.errors import SpecError, StoreError
from windowshift.core.contract.vector_job import VectorJob, VectorMade
from windowshift.core.plan.jobs import Job
from windowshift.core.run.call import call
from windowshift.core.run.ledger import Ledger
from windowshift.core.run.vector_work import VectorJobMaker


class VectorLane:
    """Has vectors made, and solves for matched doses."""

    def __init__(self, ledger: Ledger, backends: Mapping[str, Backend], vector_maker: VectorJobMaker) -> None:
        self._ledger, self._backends, self._vector_maker = ledger, backends, vector_maker

    async def run(self, name: str, jobs: Sequence[Job]) -> None:
        """Hand one backend the vectors that can be made, in one call."""
        by_key = {job.id: job for job in jobs}
        with call(self._ledger, name, jobs, "making every vector"):
            vector_jobs: list[VectorJob] = []
            for job in jobs:
                self._ledger.start(job)
                with self._ledger.remaking(job):
                    try:
                        vector_jobs.append(await self._vector_maker.vector_job(job))
                    except DamagedError:
                        raise
                    except (SpecError, StoreError) as error:
                        self._ledger.fail(job, str(error))
            backend = self._backends[name]
            assert isinstance(backend, SteeringBackend)  # the plan has seen to it
            async with aclosing(backend.make_vectors(vector_jobs)) as stream:
                async for event in stream:
                    job = by_key[event.key]
                    if isinstance(event, VectorMade):
                        self._ledger.finish(job, self._vector_maker.made(job))
                    else:
                        self._ledger.fail(job, event.error)

    def match(self, job: Job) -> None:
        """Solve for a matched dose; one that is out of reach is a failure that says how far the vector goes."""
        try:
            result, problem = self._vector_maker.match(job)
        except SpecError as error:
            self._ledger.fail(job, str(error))
            return
        if problem is None:
            self._ledger.finish(job, result)
        else:
            self._ledger.fail(job, problem, result)
