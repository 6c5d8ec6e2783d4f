"""A fine-tune that exists as the model that an experiment starts from: `adapter:` in a spec."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.backend_contract import answers, request
from tests.backends.test_local_backend import subject_of
from tests.runs import windowshift, write_spec
from tests.tiny_models import build
from windowshift import LocalModel, Sft
from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.errors import SpecError
from windowshift.core.contract.generation import Model, Sampling
from windowshift.core.plan.plan import Plan
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.core.store.reader import Reader

GREEDY = Sampling(0.0, 1.0, 16)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "base", max_position_embeddings=1024, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    with LocalModel(str(base), folder=folder, workers=1, device="cpu") as model:
        made = model.train(["hi"], ["sea"], sft=Sft(rank=2, batch_size=1, learning_rate=3e-2, epochs=8))
    return Path(made)


def planned(base: Path, adapter: Path | str, more: str = "") -> Plan:
    text = write_spec(Path(str(adapter)).parent, base, more=f"adapter: {adapter}\n{more}").read_text()
    return plan_spec(parse_spec(text), text, Path.cwd())


async def test_a_merged_adapter_is_the_adapter_and_others_go_on_top(base: Path, tuned: Path, tmp_path: Path) -> None:
    subject = subject_of(base, device="cpu")
    backend = LocalBackend({"workers": 1, "threads": 1, "device": "cpu"})
    merged = Model(str(base), merged=str(tuned))
    asked = [
        request(subject, name, model=model, sampling=GREEDY)
        for name, model in (
            ("plain", Model(str(base))),
            ("attached", Model(str(base), adapter=str(tuned))),
            ("merged", merged),
            ("both", Model(str(base), adapter=str(tuned), merged=str(tuned))),
        )
    ]
    found = await answers(backend, asked)
    assert found["attached"].text == found["merged"].text != found["plain"].text
    assert found["both"].text != found["merged"].text
    bad = request(subject, "bad", model=Model(str(base), merged=str(tmp_path)), sampling=GREEDY)
    assert "adapter_config.json" in ((await answers(backend, [bad]))["bad"].error or "")
    await backend.aclose()


def test_its_content_is_in_the_identity_and_its_place_is_not(base: Path, tuned: Path, tmp_path: Path) -> None:
    first = planned(base, tuned)
    moved = Path(shutil.copytree(tuned, tmp_path / "elsewhere" / tuned.name))
    assert [job.id for job in planned(base, moved).jobs] == [job.id for job in first.jobs]
    assert first.model.label == f"base+{tuned.name}"
    config = moved / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 3}), encoding="utf-8")
    other = planned(base, moved)
    assert other.model.fingerprint != first.model.fingerprint
    assert not {job.id for job in other.jobs if job.kind != "score"} & {job.id for job in first.jobs}


def test_what_is_no_adapter_or_no_backend_for_it_is_refused(base: Path, tuned: Path) -> None:
    with pytest.raises(SpecError, match=r"adapter: .* has no adapter_config\.json"):
        planned(base, tuned.parent)
    with pytest.raises(SpecError, match="adapter: backend 'vllm' cannot start from a fine-tune"):
        planned(base, tuned, "backend: {train: local, generate: vllm}\n")


def test_a_grid_starts_from_it(base: Path, tuned: Path, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base, train="[short]", more=f"adapter: {tuned}\nbackend_options: {{workers: 1}}\n")
    windowshift("run", spec, "--workspace", tmp_path / "ws")
    experiment = Reader(tmp_path / "ws").experiment("small")
    assert experiment is not None
    assert experiment.state == "done"
    assert experiment.model == f"base+{tuned.name}"
