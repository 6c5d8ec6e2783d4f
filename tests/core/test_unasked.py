"""Costs are seen before there is a key or a server, and without the hub one sentence comes at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.hub import cache_alone, offline
from windowshift.core.run.run import Preview, plan_spec, preview
from windowshift.core.settings.table_file import read_dataset
from windowshift.core.spec.spec import parse_spec
from windowshift.core.spec.template import Template, templates

SPEC = """\
name: x
model: {model}
prompts: microworld
conditions: {{generate: [short], train: [short], evaluate: [short]}}
"""
HOSTED = [each for each in templates() if parse_spec(each.text).generate_backend != "local"]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """No key anywhere, no hub, and a port at which nobody answers."""
    for name in ("OPENAI_API_KEY", "TINKER_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    with socket.socket() as unused:  # bound, never listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def seen(text: str, folder: Path) -> Preview:
    return preview(parse_spec(text), text, folder, folder / "ws")


@pytest.mark.parametrize("template", HOSTED, ids=lambda each: each.name)
def test_hosted_templates_are_planned_without_key_and_server(template: Template, nobody: int, tmp_path: Path) -> None:
    lines = [
        "prompts: microworld" if line.startswith("prompts:") else line.replace(":8000", f":{nobody}")
        for line in template.text.splitlines()
    ]
    found = seen("\n".join(lines), tmp_path)
    assert found.estimate.completions > 0
    (said,) = [note for note in found.notes if note.startswith("nothing was checked at backend")]
    assert "key" in said or "no vLLM server" in said
    assert "\n" not in said


def test_a_run_still_ends_with_it(nobody: int, tmp_path: Path) -> None:
    text = next(each.text for each in HOSTED if each.name == "course-api")
    text = "\n".join("prompts: microworld" if line.startswith("prompts:") else line for line in text.splitlines())
    with pytest.raises(SpecError, match="needs a key"):
        plan_spec(parse_spec(text), text, tmp_path)


def test_prices_and_limits_hold_without_a_key(nobody: int, tmp_path: Path) -> None:
    text = next(each.text for each in HOSTED if each.name == "course-api")
    text = "\n".join("prompts: microworld" if line.startswith("prompts:") else line for line in text.splitlines())
    found = seen(text, tmp_path)
    assert found.estimate.usd is not None
    assert found.estimate.usd > 1
    with pytest.raises(SpecError, match=r"limits\.usd cannot be kept"):
        seen(text.replace(parse_spec(text).model, "gpt-nobody-priced"), tmp_path)


@pytest.fixture
def away(nobody: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from huggingface_hub import constants

    for name in ("https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody}")
    offline.cache_clear()
    yield
    offline.cache_clear()


def test_a_data_set_without_the_hub_is_one_sentence_at_once(away: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError) as caught:
        list(read_dataset("windowshift-tests/nothing", config=None, split="train", revision=None))
    assert str(caught.value) == (
        "the data set windowshift-tests/nothing is not in the cache on this machine, and the hub cannot be reached: "
        "connect, or name a file"
    )
    assert "Retry" not in "".join(capfd.readouterr())


def test_the_client_is_as_it_was_afterwards() -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with cache_alone():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


def test_a_hub_id_that_nobody_has_seen_is_said(away: None, tmp_path: Path) -> None:
    text = SPEC.format(model="nobody/has-seen-this")
    found = seen(text, tmp_path)
    assert any(
        "neither the hub nor its cache on disk has told of 'nobody/has-seen-this'" in note for note in found.notes
    )


def test_a_hub_id_that_the_hub_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    from windowshift.backends.local import hub

    def missing(*_: object, **__: object) -> None:
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "http://hub")))

    monkeypatch.setattr(hub, "offline", lambda: False)
    monkeypatch.setattr(HfApi, "model_info", missing)
    text = SPEC.format(model="nobody/has-made-this")
    with pytest.raises(SpecError, match="model: the hub has no model 'nobody/has-made-this' for this account"):
        seen(text, tmp_path)
