"""`executor: ray` on a cluster of several nodes on loopback, whose nodes are killed, join late, or are unfit."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import SPEC, completions, start, tiny_llama, wait_until, windowshift  # noqa: F401  # a fixture
from windowshift import load_spec, run_spec
from windowshift.backends.local.cluster import freight
from windowshift.backends.local.cluster.installation import installation
from windowshift.backends.local.cluster.ray_station import ObjectStore
from windowshift.core.store.connection import store_path

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, where the driver is, and two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def spec_at(folder: Path, model: Path, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(SPEC.format(name="small", model=model, train="[short, long, no_prefix]") + more, encoding="utf-8")
    return path


def over_ray(cluster: Any, **more: object) -> str:
    said = "".join(f", {key}: {value}" for key, value in more.items())
    options = "state_seconds: 0, progress_seconds: 0, threads: 1"
    return f"backend_options: {{local: {{executor: ray, {options}, ray: {{address: '{cluster.address}'{said}}}}}}}\n"


def tables(workspace: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What a run found, without times and places."""
    asked = {
        "jobs": "SELECT id, kind, state FROM jobs ORDER BY id",
        "completions": "SELECT jobs.id, row, text, finish, tokens FROM completions JOIN jobs ON jobs.n = job "
        "ORDER BY jobs.id, row",
        "scores": "SELECT jobs.id, row, behaviour, value FROM scores JOIN jobs ON jobs.n = job "
        "ORDER BY jobs.id, row, behaviour",
    }
    with contextlib.closing(sqlite3.connect(store_path(workspace))) as store:
        return {name: store.execute(sql).fetchall() for name, sql in asked.items()}


def ran(path: Path, workspace: Path) -> dict[str, list[tuple[Any, ...]]]:
    spec, text = load_spec(path)
    outcome = run_spec(spec, text, path.parent, workspace)
    assert outcome.state == "done", outcome
    return tables(workspace)


def weights(workspace: Path) -> dict[str, bytes]:
    found = sorted((workspace / "artifacts").rglob("adapter/adapter_model.safetensors"))
    return {path.parts[-3]: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def expected(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:  # noqa: F811
    folder = tmp_path_factory.mktemp("alone")
    return ran(spec_at(folder, tiny_llama), folder / "ws"), weights(folder / "ws")


def test_tables_are_those_of_one_machine(cluster: Any, tiny_llama: Path, tmp_path: Path, expected: Any) -> None:  # noqa: F811
    assert ran(spec_at(tmp_path, tiny_llama, over_ray(cluster)), tmp_path / "ws") == expected[0]
    assert weights(tmp_path / "ws") == expected[1]
    assert len(expected[1]) == 3


def test_nodes_killed_at_ten_random_moments(
    cluster: Any,
    tiny_llama: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Each killed node is followed by one that joins late; the tables stay those of one machine."""
    more = "seeds: [0, 1, 2, 3]\n"
    wanted = ran(spec_at(tmp_path / "alone", tiny_llama, more), tmp_path / "alone" / "ws")
    moments, killed = random.Random(7), 0
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    path = spec_at(tmp_path, tiny_llama, over_ray(cluster, patience=120) + more)
    process = start("run", path, "--workspace", tmp_path / "ws", "--quiet")
    while process.poll() is None and killed < 10:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.2, 3.0))
        cluster.remove_node(nodes.pop(moments.randrange(len(nodes))), allow_graceful=False)
        killed += 1
        nodes.append(cluster.add_node(num_cpus=1))  # late
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert killed == 10
    assert tables(tmp_path / "ws") == wanted
    assert weights(tmp_path / "ws") == weights(tmp_path / "alone" / "ws")


def test_a_driver_that_is_killed_loses_nothing(cluster: Any, tiny_llama: Path, tmp_path: Path, expected: Any) -> None:  # noqa: F811
    path = spec_at(tmp_path, tiny_llama, over_ray(cluster))
    process = start("run", path, "--workspace", tmp_path / "ws", "--quiet")
    try:
        wait_until(lambda: completions(tmp_path / "ws") > 0)
    finally:
        process.kill()
        process.communicate()
    before = tables(tmp_path / "ws")["completions"]
    windowshift("run", path, "--workspace", tmp_path / "ws", "--quiet")
    after = tables(tmp_path / "ws")
    assert after == expected[0]
    assert set(before) <= set(after["completions"])


def test_artifacts_through_a_shared_folder_chosen_on_the_command_line(
    cluster: Any,
    tiny_llama: Path,  # noqa: F811
    tmp_path: Path,
    expected: Any,
) -> None:
    options = f"backend_options: {{ray: {{address: '{cluster.address}', artifacts: '{tmp_path / 'shared'}'}}}}\n"
    path = spec_at(tmp_path, tiny_llama, options)
    windowshift("run", path, "--workspace", tmp_path / "ws", "--quiet", "--executor", "ray")
    assert tables(tmp_path / "ws") == expected[0]
    assert weights(tmp_path / "ws") == expected[1]
    assert list((tmp_path / "shared").iterdir())


def test_a_full_object_store_is_waited_for(
    cluster: Any,
    tiny_llama: Path,  # noqa: F811
    tmp_path: Path,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ray.exceptions import ObjectStoreFullError

    give, tries = ObjectStore.give, 0

    def full(self: ObjectStore, data: bytes, digest: str) -> Any:
        nonlocal tries
        tries += 1
        if tries in (1, 2, 5, 6, 7):
            raise ObjectStoreFullError("the object store is full")
        return give(self, data, digest)

    monkeypatch.setattr(ObjectStore, "give", full)
    assert ran(spec_at(tmp_path, tiny_llama, over_ray(cluster)), tmp_path / "ws") == expected[0]
    assert tries > 7


def test_nodes_with_other_versions_take_no_part(
    cluster: Any,
    tiny_llama: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(freight, "installation", lambda: {**installation(), "torch": "1.0"})
    spec, text = load_spec(spec_at(tmp_path, tiny_llama, over_ray(cluster)))
    outcome = run_spec(spec, text, tmp_path, tmp_path / "ws")
    assert outcome.state == "failed"
    assert "no node of the Ray cluster takes part" in outcome.failures[0]
    assert "and this machine has 1.0: install the same there" in outcome.failures[0]


def test_no_cluster_and_no_room_are_sentences(cluster: Any, tiny_llama: Path, tmp_path: Path) -> None:  # noqa: F811
    path = spec_at(tmp_path, tiny_llama, over_ray(cluster, gpus=1, patience=0))
    spec, text = load_spec(path)
    outcome = run_spec(spec, text, tmp_path, tmp_path / "ws")
    assert "no node of the Ray cluster had room for a worker (1 CPUs and 1 GPUs)" in outcome.failures[0]
    spec, text = load_spec(
        spec_at(tmp_path / "b", tiny_llama, "backend_options: {executor: ray, ray: {address: '127.0.0.1:1'}}\n")
    )
    outcome = run_spec(spec, text, tmp_path, tmp_path / "ws2")
    assert "there is no Ray cluster at '127.0.0.1:1'" in outcome.failures[0]
