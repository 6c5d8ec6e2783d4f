"""One call to a backend: what becomes of its jobs when it ends, as it should or not."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from windowshift.core.contract.errors import StoreError, WindowshiftError
from windowshift.core.plan.jobs import Job
from windowshift.core.run.ledger import Ledger

log = logging.getLogger("windowshift.runner")

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


@contextmanager
def call(ledger: Ledger, name: str, jobs: Collection[Job], unfinished: str) -> Iterator[None]:
    """Settle some jobs when the block ends: what is not finished failed, or waits again where it was interrupted.

    Args:
        ledger: the run's jobs.
        name: of the backend, for the sentence that says what went wrong.
        jobs: those of the call; looked at when the block ends.
        unfinished: what the backend did not do, where it ends without finishing every job.

    Raises:
        StoreError: the store, or the disk, cannot be written: that ends the run.
        asyncio.CancelledError: interrupted.
    """
    try:
        yield
        ledger.fail_unfinished(jobs, f"backend '{name}' ended without {unfinished}")
    except StoreError:
        raise
    except WindowshiftError as error:
        ledger.fail_unfinished(jobs, str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            place = ledger.workspace
            raise StoreError(f"cannot write to {place}: {error.strerror}; free space and run again") from error
        log.exception("a call to backend '%s' failed", name)
        ledger.fail_unfinished(jobs, f"unexpected error in backend '{name}', see the log: {error!r}")
    finally:
        for job in jobs:
            ledger.put_back(job)
