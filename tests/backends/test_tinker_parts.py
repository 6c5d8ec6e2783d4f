"""The parts of backend `tinker` that need no server."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from windowshift.backends.local.chat_format import TrainingTokens
from windowshift.backends.shared.faults import BrokenAnswerError, Fault, ServiceError
from windowshift.backends.tinker.adapter_folder import RemoteAdapter, complete
from windowshift.backends.tinker.advice import advice, of_width, recommended
from windowshift.backends.tinker.backend import TinkerBackend
from windowshift.backends.tinker.faults import fault_of
from windowshift.backends.tinker.losses import LossFile
from windowshift.backends.tinker.options import TinkerOptions
from windowshift.backends.tinker.tokens import ModelTokens, datums, mean_loss
from windowshift.backends.tinker.training import expired
from windowshift.backends.tinker.training_journal import FILE, Saving, TrainingJournal
from windowshift.backends.tinker.work import check_alpha, work_of
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Message, Model
from windowshift.core.contract.prices import listed
from windowshift.core.contract.training import Example, Sft, TrainJob


@pytest.fixture(autouse=True)
def nobodys_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipline": 3}, "did you mean 'pipeline'?"),
        ({"pipeline": 0}, "at least 1"),
        ({"keep_days": 0.01}, "at least 1/24"),
        ({"download": "yes"}, "true or false"),
        ({"api_key": "tml-secret-secret"}, "does not belong in a spec"),
        ({"key_env": "tml-secret-secret"}, "NAME of an environment variable"),
        ({"base_url": "https://user:tml-secret@host"}, "no user, password or query"),
        ({"base_url": "http://tinker.example.com"}, "unencrypted"),
        ({"tokenizer": ""}, "hub id or a folder"),
    ],
)
def test_wrong_options_are_named_and_no_key_is_shown(options: dict[str, object], said: str) -> None:
    with pytest.raises(BackendError) as caught:
        TinkerBackend(options)
    assert said in str(caught.value)
    assert "tml-secret" not in str(caught.value)


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TinkerOptions.parse({}).host == "tinker.thinkingmachines.dev"
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:8000/")
    assert TinkerOptions.parse({}).base_url == "http://127.0.0.1:8000"


def test_a_missing_key_is_said_before_anybody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = TinkerBackend().reach()
    assert (reached.key, reached.reachable) == ("missing", False)
    assert "backend 'tinker' needs a key" in (reached.problem or "")
    assert "TINKER_API_KEY" in (reached.problem or "")
    monkeypatch.setenv("TINKER_API_KEY", "sk-not-one-of-theirs")
    problem = TinkerBackend().reach().problem or ""
    assert "begin with 'tml-'" in problem
    assert "not-one-of-theirs" not in problem


def test_importing_the_backend_loads_neither_the_sdk_nor_torch() -> None:
    code = (
        "import sys, windowshift.backends.tinker.backend\n"
        "print([name for name in ('tinker', 'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_batch_weighs_completion_tokens_alike() -> None:
    batch = [TrainingTokens([1, 2, 3], [4, 5]), TrainingTokens([6], [7, 8, 9, 10])]
    first, second = datums(batch)
    assert first.model_input.to_ints() == [1, 2, 3, 4]
    assert list(first.loss_fn_inputs["target_tokens"].data) == [2, 3, 4, 5]
    assert list(first.loss_fn_inputs["weights"].data) == pytest.approx([0, 0, 1 / 6, 1 / 6])
    assert list(second.loss_fn_inputs["weights"].data) == pytest.approx([1 / 6] * 4)
    logprobs = [[-9.0, -9.0, -1.0, -2.0], [-3.0, -4.0, -5.0, -6.0]]
    assert mean_loss(batch, logprobs) == pytest.approx((1 + 2 + 3 + 4 + 5 + 6) / 6)


def job(folder: Path, count: int = 10, **changes: object) -> TrainJob:
    data = tuple(Example((Message("user", f"Question {index}?"),), "Bees.") for index in range(count))
    plain = TrainJob("job", Model("microworld"), data, Sft(rank=4, batch_size=4, epochs=2), 0, folder, (3, 10))
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_work_knows_its_steps_and_what_is_wanted_after_which(tmp_path: Path) -> None:
    tokens, options = ModelTokens("microworld"), TinkerOptions()
    work = work_of(job(tmp_path), tokens, options, 2048)
    assert work.seen == (4, 8, 10, 14, 18, 20)
    assert [(each.step, each.name, each.folder) for each in work.wanted] == [
        (1, "sampler-000003", "checkpoint-3"),
        (3, "sampler-000010", "checkpoint-10"),
        (6, "final", "adapter"),
    ]
    assert work.token == work_of(job(tmp_path / "elsewhere"), tokens, options, 2048).token
    assert work.token != work_of(job(tmp_path, seed=1), tokens, options, 2048).token
    with pytest.raises(BackendError, match="example 1: it has"):
        work_of(job(tmp_path), tokens, options, 4)
    with pytest.raises(BackendError, match="outside"):
        work_of(job(tmp_path, checkpoints=(21,)), tokens, options, 2048)


def test_a_lora_alpha_that_tinker_has_not_is_refused() -> None:
    check_alpha(None)
    check_alpha(32)
    with pytest.raises(BackendError, match="backend local"):
        check_alpha(16)


def test_a_journal_comes_back_and_a_damaged_one_is_not_written_over(tmp_path: Path) -> None:
    saving = Saving("state-000004", "run", 4, 12.5)
    journal = TrainingJournal("token", "http://server", runs=("run",)).begun(saving).write(tmp_path)
    assert TrainingJournal.read(tmp_path) == journal
    there = journal.over(saving, "tinker://run/weights/state-000004", state=True).write(tmp_path)
    assert there.saving == ()
    assert there.state is not None
    assert TrainingJournal.read(tmp_path) == there
    assert journal.over(saving, None).state is None
    (tmp_path / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(BackendError, match="cannot be read"):
        TrainingJournal.read(tmp_path)


def test_losses_have_every_step_once_whatever_a_kill_left(tmp_path: Path) -> None:
    losses = LossFile(tmp_path)
    assert [losses.add(step, 1.0 / step, 10) for step in (1, 2, 3)] == [True, True, True]
    with (tmp_path / "losses.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    again = LossFile(tmp_path)
    assert [each.step for each in again.steps] == [1, 2, 3]
    assert [again.add(step, 0.5, 10) for step in (3, 4)] == [False, True]  # 3 was taken again
    assert [each.step for each in LossFile(tmp_path).steps] == [1, 2, 3, 4]
    assert again.paid == LossFile(tmp_path).paid == 50


def test_an_adapter_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "job7" / "adapter"
    remote = RemoteAdapter("tinker://run/sampler_weights/final", "http://server", "microworld", 8)
    folder.mkdir(parents=True)
    remote.note(folder)
    (folder / "adapter_config.json").write_bytes(b"{}")
    assert not complete(folder, peft=True)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert RemoteAdapter.read(str(folder)) == remote
    assert complete(folder, peft=True)
    (folder / "adapter_model.safetensors").unlink()
    assert not complete(folder, peft=True)
    assert complete(folder, peft=False)
    said = expired(str(folder), remote, ServiceError("gone", Fault("refused", "gone", status=404)))
    assert "job7" in said
    assert "delete that folder" in said
    with pytest.raises(BackendError, match="no/such"):
        RemoteAdapter.read("no/such")


def test_the_recommended_learning_rate_has_its_source() -> None:
    # Numbers of the published table, and of the published rule worked out by hand.
    found = recommended("Qwen/Qwen3-8B")
    assert found is not None
    assert found.learning_rate == 1e-3
    assert of_width(2000, 0.781) == pytest.approx(5e-4)
    assert of_width(4096, 0.781) == pytest.approx(5e-4 * 0.5713, rel=1e-3)
    assert "tinker-cookbook" in advice("Qwen/Qwen3-8B", 1.6e-4)
    assert "0.00016" in advice("Qwen/Qwen3-8B", 1.6e-4)
    assert "no recommendation" in advice("microworld", 1e-3)


def test_a_price_is_listed_with_its_date_or_not_known() -> None:
    price = listed("tinker.thinkingmachines.dev", "Qwen/Qwen3-8B")
    assert price is not None
    assert price.source == "price table of 2026-10-07"
    assert price.trained(1_000_000) == pytest.approx(0.44)
    assert TinkerBackend().price("meta-llama/Llama-3.1-8B") is None


def test_faults_tell_what_can_go_on() -> None:
    import httpx
    import tinker

    request = httpx.Request("POST", "http://server/api/v1/x")

    def status(code: int, detail: str) -> Fault:
        answer = httpx.Response(code, request=request)
        return fault_of(tinker.APIStatusError("failed", response=answer, body={"detail": detail}))

    assert status(401, "Invalid API key").remedy == "stop"
    assert status(404, "Checkpoint tinker://a not found").remedy == "refused"
    assert status(404, "Session not found").remedy == "again"
    assert status(503, "busy").remedy == "again"
    assert status(400, "base_model x is not supported").sentence == "base_model x is not supported"
    assert fault_of(tinker.APIConnectionError(request=request)).remedy == "again"
    for error in (KeyError("x"), AttributeError("x"), RecursionError(), BrokenAnswerError("it is none")):
        fault = fault_of(error)  # whatever is raised while an answer is read: the answer is broken
        assert (fault.remedy, fault.broken) == ("again", True)
    for bug in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(bug)):
            fault_of(bug)
