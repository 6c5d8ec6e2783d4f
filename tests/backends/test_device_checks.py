"""The checks that `make test-device` makes on an accelerator hold on a CPU too: they are tests, and must not rot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.device import checks

# Those of one architecture each are what test_architectures and test_sampler hold already.
OTHERS = [(label, check) for label, check in checks.ALL if label.count(",") < 2 and "logits as" not in label]


@pytest.mark.parametrize("check", [check for _, check in OTHERS], ids=[label for label, _ in OTHERS])
def test_a_device_check_holds_on_a_cpu(check: Any, tmp_path: Path) -> None:
    result = check("cpu", tmp_path)
    if asyncio.iscoroutine(result):
        asyncio.run(result)
