"""The parts of backend `vllm` that need no vLLM: options, names, order, turns, and what a proof is made of."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vllm_adapters import make_adapters
from windowshift.backends.local.model_folder import locate
from windowshift.backends.shared.faults import BrokenAnswerError
from windowshift.backends.shared.said import read
from windowshift.backends.vllm.adapters import AdapterFolder
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.backends.vllm.connection import VllmConnection
from windowshift.backends.vllm.engine import CacheCounts, Served, ranked
from windowshift.backends.vllm.options import VllmOptions
from windowshift.backends.vllm.order import Asked, ordered
from windowshift.backends.vllm.pushes import from_json, to_json
from windowshift.backends.vllm.served_model import find_served
from windowshift.backends.vllm.steering import _proofs
from windowshift.backends.vllm.turnstile import RequestKind, Turnstile
from windowshift.backends.vllm.wire import SlotDone
from windowshift.core.contract.backend import Backend, ModelSize, SteeringBackend
from windowshift.core.contract.errors import BackendError, SpecError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling
from windowshift.core.run.run import plan_spec
from windowshift.core.spec.spec import parse_spec
from windowshift.steering.recipe import Push

SIZE = ModelSize(4, 128)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_ulr": "http://localhost"}, "did you mean 'base_url'"),
        ({"api_key": "sk-secret-123456"}, "VLLM_API_KEY"),
        ({"base_url": "localhost:8000"}, "must be like http://"),
        ({"base_url": "https://gateway.example/[key]/v1"}, "write the address whole"),
        ({"base_url": "http://user:secret@localhost"}, "must hold no user"),
        ({"concurrency": 0}, "at least 1"),
        ({"adapters": True}, "adapters must be a whole number"),
        ({"enforce_eager": "yes"}, "true or false"),
        ({"base_url": "http://localhost:8000", "enforce_eager": True}, "take one of the two out"),
        ({"key_env": "sk-secret-123456"}, "must be the NAME"),
        ({"engine": {"model": "x"}}, "engine.model"),
        ({"engine": {"enforce_eager": False}}, "write  enforce_eager:  beside"),
        ({"base_url": "http://localhost:8000", "engine": {"dtype": "float32"}}, "take one of the two out"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError) as caught:
        VllmOptions.parse(options)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value).replace(said, "")


def test_an_address_is_taken_with_and_without_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert VllmOptions.parse({"base_url": "http://localhost:8000/v1/"}).base_url == "http://localhost:8000"
    monkeypatch.setenv("VLLM_BASE_URL", "http://localhost:9000/v1")
    assert VllmOptions.parse({}).base_url == "http://localhost:9000"


def test_it_steers_without_reading_activations() -> None:
    backend = VllmBackend()
    assert isinstance(backend, Backend)
    assert not isinstance(backend, SteeringBackend)
    assert backend.capabilities.steers
    assert backend.capabilities.loads_peft
    assert not backend.capabilities.trains


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    backend = VllmBackend({"base_url": "http://127.0.0.1:9/v1"})
    with pytest.raises(BackendError, match="there is no vLLM server at"):
        backend.identify("microworld")
    assert not backend.reach().reachable


SPEC = """\
name: two
model: microworld
backend: {backend}
prompts: microworld
conditions: {{generate: [med_short], train: [long], evaluate: [long, {{steer: length, dose: [0.3]}}]}}
vectors: {{length: {{positive: long, negative: short, prompts: 8, layer: 2}}}}
data: {{size: 8}}
sampling: {{prompts: 4, max_tokens: 8}}
"""


def test_the_plan_makes_vectors_where_activations_are_read(tmp_path: Path) -> None:
    text = SPEC.format(backend="{train: local, generate: vllm}")
    jobs = plan_spec(parse_spec(text), text, tmp_path).jobs
    assert {job.inputs["backend"] for job in jobs if job.kind == "extract"} == {"local"}
    assert {job.inputs["backend"] for job in jobs if job.kind == "train"} == {"local"}
    assert {job.inputs["backend"] for job in jobs if job.kind == "evaluate"} == {"vllm"}


def test_the_plan_refuses_training_on_vllm(tmp_path: Path) -> None:
    text = SPEC.format(backend="vllm")
    with pytest.raises(SpecError, match=r"'vllm' cannot train: write  backend: {train: local"):
        plan_spec(parse_spec(text), text, tmp_path)


def test_a_served_model_is_found_by_its_folder_or_its_name(tiny_llama: Path) -> None:
    own = str(locate("microworld"))
    assert find_served("microworld", [Served("anything", own, 8)], "it").name == "anything"
    assert find_served("org/name", [Served("org/name", "org/name", 8)], "it").max_model_len == 8
    assert find_served("microworld", [Served("microworld", "/not/on/this/machine", 8)], "it")
    with pytest.raises(BackendError, match=r"it serves 'microworld' .* and not 'org/name': start vLLM with  --model"):
        find_served("org/name", [Served("microworld", own, 8)], "it")
    with pytest.raises(BackendError, match="and not 'microworld'"):
        find_served("microworld", [Served("microworld", str(tiny_llama), 8)], "it")  # the name alone is no proof


def test_an_adapters_name_is_that_of_its_content(tmp_path: Path) -> None:
    one, other = make_adapters(tmp_path, 2)
    assert one.adapter is not None
    assert other.adapter is not None
    first = AdapterFolder.at(one.adapter, "microworld", SIZE)
    assert first == AdapterFolder.at(one.adapter, "microworld", SIZE)
    assert first.rank == 4
    assert first.name != AdapterFolder.at(other.adapter, "microworld", SIZE).name
    shutil.rmtree(one.adapter)
    shutil.copytree(other.adapter, one.adapter)
    assert first.name != AdapterFolder.at(one.adapter, "microworld", SIZE).name


@pytest.mark.parametrize(("size", "said"), [(ModelSize(4, 256), "hidden size is 256"), (ModelSize(3, 128), "layer 3")])
def test_an_adapter_of_another_model_is_refused(tmp_path: Path, size: ModelSize, said: str) -> None:
    (model,) = make_adapters(tmp_path, 1)
    assert model.adapter is not None
    with pytest.raises(BackendError, match=said):
        AdapterFolder.at(model.adapter, "other", size)


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    (model,) = make_adapters(tmp_path, 1)
    assert model.adapter is not None
    weights = Path(model.adapter) / "adapter_model.safetensors"
    weights.write_bytes(b"no weights")
    with pytest.raises(BackendError, match="cannot be read"):
        AdapterFolder.at(model.adapter, "microworld", SIZE)
    weights.unlink()
    with pytest.raises(BackendError, match=r"has no adapter_model\.safetensors"):
        AdapterFolder.at(model.adapter, "microworld", SIZE)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"use_dora": True}, "use_dora"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"field_of_next_year": 1}, "field_of_next_year"),
    ],
)
def test_what_vllm_would_read_over_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    (model,) = make_adapters(tmp_path, 1)
    config = Path(str(model.adapter)) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields), encoding="utf-8")
    with pytest.raises(BackendError, match=said):
        AdapterFolder.at(str(model.adapter), "microworld", SIZE)


def test_what_shares_work_goes_out_side_by_side(tmp_path: Path) -> None:
    adapters = [AdapterFolder(f"a{number}", "", 4) for number in range(2)]
    request = GenerateRequest("", (Message("user", "x"),), Model("m"), Sampling(), 0)
    asked = [
        Asked(place, request, (place % 3, place), adapters[place % 2], slot=("s" if place % 4 > 1 else None))
        for place in range(12)
    ]
    found = ordered(asked)
    assert sorted(one.place for one in found) == list(range(12))
    groups = [(one.adapter, one.slot) for one in found]
    assert len([1 for before, after in itertools.pairwise(groups) if before != after]) == 3
    for group in set(groups):
        prompts = [one.prompt for one in found if (one.adapter, one.slot) == group]
        assert prompts == sorted(prompts)


async def test_kinds_go_in_turns_where_the_turnstile_is_shut() -> None:
    turnstile, inside, met = Turnstile(shut=True), {"base": 0, "adapter": 0, "alone": 0}, set()

    async def pass_by(kind: RequestKind) -> None:
        async with turnstile.through(kind):
            inside[kind] += 1
            met.add(tuple(sorted(name for name, count in inside.items() for _ in range(count))))
            await asyncio.sleep(0)
            inside[kind] -= 1

    await asyncio.wait_for(asyncio.gather(*(pass_by(kind) for kind in ("base", "adapter", "alone") * 8)), 20)
    assert all(len(set(kinds)) == 1 for kinds in met)
    assert ("alone", "alone") not in met
    assert any(len(kinds) > 1 for kinds in met)


async def test_a_turn_that_is_given_up_stops_nobody() -> None:
    turnstile = Turnstile(shut=True)
    async with turnstile.through("base"):
        waiting = asyncio.create_task(turnstile.through("adapter").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
    async with asyncio.timeout(5), turnstile.through("alone"):
        pass


def push(**changes: Any) -> Push:
    given: dict[str, Any] = {
        "vector": "v", "layer": 1, "alpha": 0.5, "tokens": "all", "ablate": False,
        "direction": np.arange(4.0), "place": ("file", 0), "slot": 3,
    }  # fmt: skip
    return Push(**{**given, **changes})


def test_a_push_comes_to_the_worker_whole() -> None:
    came = from_json(to_json(push()), 7)
    assert (came.vector, came.layer, came.alpha, came.tokens, came.ablate, came.slot) == ("v", 1, 0.5, "all", False, 7)
    assert came.direction.tolist() == [0, 1, 2, 3]
    other = from_json(to_json(push(direction=np.ones(4))), 7)
    assert came.place != other.place  # one file, another content


DONE = {
    "pushes": [{"calls": 5, "tokens": 30.0, "moved": 15.0, "wanted": 15.0, "size": 60.0, "tokens_asked": 30.0}],
    "passes": 5, "requests": 2, "cached": 4, "eps": 1e-7, "exact": True, "problem": "",
}  # fmt: skip
ANSWERS = [(10, 9), (10, 7)]  # 20 prompt tokens, 4 of them cached, and 14 that were drawn and fed


def line(**changes: float) -> dict[str, Any]:
    return {**DONE, "pushes": [{**DONE["pushes"][0], **changes}]}  # type: ignore[index]


def test_a_proof_holds_where_everything_fits() -> None:
    (proof,) = _proofs([push()], read(SlotDone, DONE), ANSWERS)
    assert proof.problem() is None
    assert (proof.change, proof.tokens, proof.calls_asked) == (0.5, 30, 5)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (line(calls=4), "did not fire"),
        (line(tokens=29.0), "changed 29 tokens"),
        (line(moved=14.0), "moved activations"),
    ],
)
def test_a_proof_shows_what_was_done_otherwise(done: dict[str, Any], said: str) -> None:
    (proof,) = _proofs([push()], read(SlotDone, done), ANSWERS)
    assert said in (proof.problem() or "")


@pytest.mark.parametrize("done", [line(tokens_asked=29.0, tokens=29.0), {**DONE, "cached": 3}, {**DONE, "requests": 1}])
def test_the_answers_tell_what_a_worker_passed_by(done: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="passed tokens by"):
        _proofs([push()], read(SlotDone, done), ANSWERS)


def test_what_a_worker_could_not_do_is_said() -> None:
    with pytest.raises(BackendError, match="could not steer: a layer gave out something else"):
        _proofs([push()], read(SlotDone, {**DONE, "problem": "a layer gave out something else"}), ANSWERS)


@pytest.mark.parametrize("wrong", [None, "x", -1, 10**30, float("nan"), float("inf"), [], {}, True])
@pytest.mark.parametrize("place", ["passes", "requests", "cached", "eps", "pushes", "calls", "tokens", "moved", "size"])
def test_what_a_worker_says_has_types_and_bounds(place: str, wrong: Any) -> None:
    fine = place in ("eps", "moved", "size") and wrong in (-1, 10**30)  # numbers
    done = {**DONE, place: wrong} if place in DONE else line(**{place: wrong})
    if fine and not isinstance(wrong, bool):
        read(SlotDone, done)
        return
    with pytest.raises(BrokenAnswerError):
        _proofs([push()], read(SlotDone, done), ANSWERS)


def test_an_engine_that_died_has_its_remedy() -> None:
    connection = VllmConnection(VllmOptions.parse({"base_url": "http://127.0.0.1:9"}))
    said = str(connection._refused(500, json.dumps({"error": {"message": "EngineCore encountered an issue."}})))
    assert "refused (500): EngineCore encountered an issue." in said
    assert "--no-enable-chunked-prefill" in said
    assert "engine has died" not in str(connection._refused(500, "no"))


def test_small_numbers() -> None:
    assert ranked({1: -3.0, 2: -1.0, 3: -2.0}, 2) == ((2, -1.0), (3, -2.0))
    assert CacheCounts(0.0, 0.0).rate is None
    assert CacheCounts(8.0, 2.0).plus(CacheCounts(2.0, 3.0)).rate == 0.5
    assert CacheCounts(8.0, 4.0).since(CacheCounts(6.0, 3.0)) == CacheCounts(2.0, 1.0)
    assert CacheCounts(5.0, 1.0).since(CacheCounts(6.0, 0.0)) == CacheCounts(5.0, 1.0)  # it was restarted


def test_without_vllm_or_a_server_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_BASE_URL", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    backend = VllmBackend()
    with pytest.raises(BackendError, match="vLLM is not installed in this environment: install it"):
        backend.check("microworld", None)
    assert not backend.reach().reachable
