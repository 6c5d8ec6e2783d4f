"""The doctor: what it says of backends that are servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.runs import windowshift
from tests.servers import KEY, limited
from windowshift.core.contract.assets import asset
from windowshift.core.contract.service import Reached
from windowshift.core.run.doctor import BackendHealth, Health


def openai(workspace: Path) -> dict[str, object]:
    found = json.loads(windowshift("doctor", "--workspace", workspace, "--json").stdout)
    return next(one for one in found["backends"] if one["name"] == "openai")  # type: ignore[no-any-return]


def test_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(
        line.split("==")
        for line in (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").split()
        if "==" in line
    )
    tested = yaml.safe_load(asset("tested.yaml").read_text(encoding="utf-8"))
    assert tested == {name: pinned[name] for name in tested}


def test_a_server_is_reached_and_its_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited() as address:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{address.port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        found = openai(tmp_path)
        assert found["installed"] is True
        assert found["tested"] == {"openai": "3.52.0"}
        assert found["service"] == {
            "address": f"http://127.0.0.1:{address.port}/v1",
            "key": "environment",
            "reachable": True,
            "problem": None,
            "models": ["judge", "small"],
        }
        said = windowshift("doctor", "--workspace", tmp_path).stdout
        assert "models: judge, small" in said
        assert KEY not in said


def test_a_missing_key_and_a_server_that_is_away_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with limited() as address:
        pass
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{address.port}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    service = openai(tmp_path)["service"]
    assert isinstance(service, dict)
    assert (service["key"], service["reachable"]) == ("missing", False)
    assert "OPENAI_API_KEY" in str(service["problem"])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    service = openai(tmp_path)["service"]
    assert isinstance(service, dict)
    assert (service["key"], service["reachable"]) == ("environment", False)
    assert "cannot be reached" in str(service["problem"])


def test_a_backend_that_cannot_be_used_is_not_called_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of a client say nothing of the engine or the server that it needs."""
    with limited() as address:
        pass
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{address.port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("VLLM_BASE_URL", raising=False)
    found = json.loads(windowshift("doctor", "--workspace", tmp_path, "--json").stdout)
    usable = {one["name"]: one["usable"] for one in found["backends"]}
    assert usable["local"] is True
    assert usable["openai"] is False
    said = windowshift("doctor", "--workspace", tmp_path).stdout.splitlines()
    for number, line in enumerate(said):
        if line.startswith("backend "):
            name = line.split()[1].rstrip(":")
            assert line.startswith(f"backend {name}: {'ready' if usable[name] else 'not ready'}; can: ")
            if not usable[name]:
                assert said[number + 1].startswith("  ")
    engine = BackendHealth(
        "vllm", True, None, {}, {}, {"generates": True}, Reached("here", "none needed", False, "not installed", ())
    )
    assert not engine.usable
    assert engine.lines() == ["backend vllm: not ready; can: generates", "  here: not installed"]


def test_health_needs_one_backend_that_can_be_used() -> None:
    away = BackendHealth("openai", True, None, {}, {}, {}, Reached("x", "missing", False, "no key", ()))
    there = BackendHealth("local", True, None, {}, {}, {})
    assert not Health("1", "3.11", (away,), (), "ws", ()).healthy
    assert Health("1", "3.11", (away, there), (), "ws", ()).healthy
    assert not Health("1", "3.11", (away, there), (), "ws", ("broken",)).healthy
