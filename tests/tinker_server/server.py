"""SkyRL's Tinker server for tests: `ENVIRONMENT/bin/python -m tests.tinker_server.server MODEL FOLDER PORT`.

MODEL is a folder; its last part is the name under which the model is offered. FOLDER holds the database and the
checkpoints, and outlives the process. The key is in the environment variable KEY_OF_THIS_TEST.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typing_extensions

# SkyRL's types use what only Python 3.12 has; pydantic takes the backport.
import typing  # isort: skip

typing.TypedDict = typing_extensions.TypedDict  # type: ignore[assignment]

import uvicorn  # noqa: E402
from skyrl.tinker import api  # noqa: E402
from skyrl.tinker.config import EngineConfig, config_to_argv  # noqa: E402

from tests.tinker_server import routes  # noqa: E402

ADAPTERS = 20  # in memory at once, one of them the base model's
ROWS = 16  # sampled in one pass
RANK = 8


def main(model: str, folder: str, port: str) -> None:
    """Serve until the process is ended."""
    source, place = Path(model).resolve(), Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    os.chdir(source.parent)  # the server takes a relative folder for a model's name
    api.app.state.engine_config = EngineConfig(
        base_model=source.name,
        backend="jax",
        backend_config={
            "max_lora_adapters": ADAPTERS,
            "max_lora_rank": RANK,
            "sample_max_num_sequences": ROWS,
            "train_micro_batch_size": 0,
        },
        checkpoints_base=place / "checkpoints",
        database_url=f"sqlite:///{place / 'tinker.db'}",
        session_cleanup_interval_sec=2,
        session_timeout_sec=20,  # a client beats every 10 s; a killed one must free its places
    )
    # It would start its engine through `uv run`, with flags from its parent's command line.
    api._build_uv_run_cmd_engine = lambda _, config: [
        *(sys.executable, "-m", "tests.tinker_server.engine"),
        *config_to_argv(config),
    ]
    routes.install(api.app, os.environ.pop("KEY_OF_THIS_TEST"))
    uvicorn.run(api.app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
