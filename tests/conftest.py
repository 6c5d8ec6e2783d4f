"""Fixtures that every test can use, and how property tests run."""

import pytest
from hypothesis import settings

from tests.runs import tiny_llama as tiny_llama
from tests.tinkered import tinker_server as tinker_server
from tests.vllm_server import keyed as keyed
from tests.vllm_server import vllm_server as vllm_server

settings.register_profile("windowshift", deadline=None)  # a busy machine is no failure
settings.load_profile("windowshift")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One speed for all pictures of a test: a suite that leaves some out would fail, as it finds theirs unused."""
    suites: dict[str, set[bool]] = {}
    for item in items:
        if "snap_compare" in getattr(item, "fixturenames", ()):
            test = item.nodeid.partition("[")[0]
            suites.setdefault(test, set()).add(item.get_closest_marker("slow") is not None)
    if split := sorted(test for test, slow in suites.items() if len(slow) > 1):
        raise pytest.UsageError(f"{', '.join(split)}: some of its pictures are slow and some are not; mark all or none")
