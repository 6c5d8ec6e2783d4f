"""A server with limits and options of a test's choosing: `python -m tests.serve_here MODEL DATA LIMITS OPTIONS`.

LIMITS are fields of `ServerLimits`, OPTIONS those of backend `local`, both as JSON. Prints the base URL.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.serve.limits import ServerLimits
from windowshift.backends.serve.server import ServerOptions, serve
from windowshift.core.contract.training import Sft


def main(model: str, data: str, limits: str, options: str) -> None:
    """Serve until the process is ended."""
    serve(
        LocalBackend({"workers": 1, "threads": 1, "progress_seconds": 0, **json.loads(options)}),
        ServerOptions(
            models=(model,),
            data=Path(data),
            key=os.environ.pop("KEY_OF_THIS_TEST"),
            port=0,
            sft=Sft(rank=4, learning_rate=2e-2),
            limits=ServerLimits(**json.loads(limits)),
        ),
        lambda url: print(url, flush=True),  # noqa: T201  # the test reads this
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
