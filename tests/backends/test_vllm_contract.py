"""Backend `vllm` on a real server: the contract, and what it says where it cannot answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.backend_contract import BackendContract, Subject, answers, gather, job, request
from tests.runs import windowshift, write_spec
from tests.vllm_adapters import make_adapters
from tests.vllm_server import ARGUMENTS, KEY, VllmAddress, vllm_serving
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.vllm.backend import VllmBackend
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Model, Sampling, Steering
from windowshift.core.contract.service import Service
from windowshift.core.contract.training import TrainFailed

pytestmark = pytest.mark.vllm
MODEL = Model("microworld")
OVER_LONG = "word " * 3000


def subject_at(address: VllmAddress) -> Subject:
    return Subject(
        make=lambda: VllmBackend({"base_url": address.base_url}),
        model=MODEL,
        unknown_model="./no/such/model",
        over_long=OVER_LONG,
        exact=False,  # float32 kernels round by the shape of the batch
    )


class TestContract(BackendContract):
    @pytest.fixture
    def subject(self, keyed: VllmAddress, monkeypatch: pytest.MonkeyPatch) -> Subject:
        def wrong() -> VllmBackend:
            monkeypatch.setenv("WRONG_KEY", "sk-wrong-0123456789")
            return VllmBackend({"base_url": keyed.base_url, "key_env": "WRONG_KEY"})

        found = subject_at(keyed)
        return Subject(found.make, found.model, found.unknown_model, found.over_long, exact=False, wrong_key=wrong)


@pytest.fixture
async def backend(keyed: VllmAddress) -> AsyncIterator[VllmBackend]:
    made = VllmBackend({"base_url": keyed.base_url})
    yield made
    await made.aclose()


def test_it_is_the_model_of_backend_local(keyed: VllmAddress, backend: VllmBackend) -> None:
    here, there = LocalBackend().identify("microworld"), backend.identify("microworld")
    # What backend local says of training it beside that is its own.
    assert (there.label, there.fingerprint, there.rehearsal) == (here.label, here.fingerprint, True)
    assert isinstance(backend, Service)
    reached = backend.reach()
    assert (reached.reachable, reached.key, reached.models) == (True, "environment", ("microworld",))


def test_another_model_is_one_sentence(backend: VllmBackend, tiny_llama: Path) -> None:
    with pytest.raises(BackendError, match=r"serves 'microworld' .* and not .*tiny-llama.*--model"):
        backend.identify(str(tiny_llama))


async def test_a_prompt_that_does_not_fit_names_the_limit(keyed: VllmAddress, backend: VllmBackend) -> None:
    subject = subject_at(keyed)
    wide = Sampling(1.0, 1.0, 2040)
    found = await answers(backend, [request(subject, "a", OVER_LONG), request(subject, "b", sampling=wide)])
    assert "max_model_len 2048" in (found["a"].error or "")
    assert "max_model_len 2048" in (found["b"].error or "")


async def test_it_trains_nothing(keyed: VllmAddress, backend: VllmBackend, tmp_path: Path) -> None:
    (event,) = await gather(backend.train([job(subject_at(keyed), tmp_path)]))
    assert isinstance(event, TrainFailed)
    assert "train: local, generate: vllm" in event.error


async def test_the_key_is_in_no_sentence(keyed: VllmAddress, backend: VllmBackend) -> None:
    found = await answers(backend, [request(subject_at(keyed), "a", OVER_LONG)])
    assert KEY not in str(found) + repr(backend.__dict__)


async def test_a_rank_too_high_names_the_remedy(backend: VllmBackend, tmp_path: Path) -> None:
    (adapter,) = make_adapters(tmp_path, 1, rank=16)
    found = await answers(backend, [request(Subject(lambda: backend, MODEL, "", ""), "a", model=adapter)])
    assert "has rank 16" in (found["a"].error or "")
    assert "--max-lora-rank 16" in (found["a"].error or "")


async def test_an_adapter_of_another_model_fails(backend: VllmBackend, tmp_path: Path) -> None:
    (adapter,) = make_adapters(tmp_path, 1, width=64)
    subject = Subject(lambda: backend, MODEL, "", "")
    found = await answers(backend, [request(subject, "a", model=adapter), request(subject, "fine")])
    assert found["a"].finish == "failed"
    assert found["fine"].finish != "failed"


async def test_a_changed_folder_is_another_adapter(backend: VllmBackend, tmp_path: Path) -> None:
    one, other = make_adapters(tmp_path, 2)
    subject = Subject(lambda: backend, MODEL, "", "")
    greedy = Sampling(0.0, 1.0, 24)
    before = await answers(backend, [request(subject, "a", model=one, sampling=greedy)])
    direct = await answers(backend, [request(subject, "a", model=other, sampling=greedy)])
    assert one.adapter is not None
    assert other.adapter is not None
    shutil.rmtree(one.adapter)
    shutil.copytree(other.adapter, one.adapter)
    after = await answers(backend, [request(subject, "a", model=one, sampling=greedy)])
    assert before["a"].text != direct["a"].text
    assert after["a"].text == direct["a"].text


@pytest.fixture(scope="module")
def bare() -> Iterator[VllmAddress]:
    """A server as somebody starts it who read nothing: no adapters, no extension."""
    with vllm_serving(*ARGUMENTS) as address:
        yield address


async def test_a_bare_server_says_what_it_lacks(bare: VllmAddress, tmp_path: Path) -> None:
    backend = VllmBackend({"base_url": bare.base_url})
    subject = subject_at(bare)
    (adapter,) = make_adapters(tmp_path, 1)
    steered = request(subject, "steered", steering=(Steering(str(vector(tmp_path)), 0.5),))
    found = await answers(
        backend,
        [request(subject, "plain", coherence=True), steered, request(subject, "adapter", model=adapter)],
    )
    await backend.aclose()
    assert found["plain"].finish != "failed"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in (found["adapter"].error or "")
    assert "--worker-extension-cls" in (found["steered"].error or "")
    assert "VLLM_SERVER_DEV_MODE=1" in (found["steered"].error or "")


def test_what_a_server_was_not_started_for_is_said_before_anything_runs(
    bare: VllmAddress, keyed: VllmAddress, tmp_path: Path
) -> None:
    for steered in (False, True):
        VllmBackend({"base_url": keyed.base_url}).check(MODEL.base, None, steered=steered)
        with pytest.raises(BackendError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
            VllmBackend({"base_url": bare.base_url}).check(MODEL.base, None, steered=steered)
    spec = tmp_path / "x.yaml"
    spec.write_text(
        "name: x\nmodel: microworld\nbackend: {train: local, generate: vllm}\n"
        f"backend_options: {{vllm: {{base_url: '{bare.base_url}'}}}}\n"
        "conditions: {generate: [short], train: [short], evaluate: [short]}\n"
    )
    refused = windowshift("plan", spec, "--workspace", tmp_path / "ws", check=2)
    assert "--enable-lora" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_doctor_sees_the_server(keyed: VllmAddress, tmp_path: Path) -> None:
    found = json.loads(windowshift("doctor", "--workspace", tmp_path, "--json").stdout)
    (own,) = (one for one in found["backends"] if one["name"] == "vllm")
    assert own["installed"]
    assert own["service"]["reachable"]
    assert own["service"]["models"] == ["microworld"]


def test_training_on_it_is_refused_in_the_plan(keyed: VllmAddress, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "microworld", more="backend: vllm\n")
    done = windowshift("plan", spec, "--workspace", tmp_path / "ws", check=2)
    assert "train: local" in done.stderr


def vector(folder: Path) -> Path:
    from tests.vllm_adapters import make_vector

    return make_vector(folder)
