"""Training under doses on backend `local`: against a loop written by hand, resumed, and proven."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.backend_contract import ending, gather, job
from tests.backends.test_steered_backend import OPTIONS, SABOTAGES, hand_pushed, subject_of, vector
from tests.tiny_models import build
from tests.train_here import kill_job
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import load
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.generation import Message, Steering
from windowshift.core.contract.training import Checkpointed, Example, Sft, Trained, TrainEvent, TrainFailed, TrainJob
from windowshift.steering.architecture import find_decoder
from windowshift.steering.stage import Stage

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama")


def steered(folder: Path, output: Path, doses: Sequence[tuple[Steering, ...]], **changes: Any) -> TrainJob:
    """One example a dose, all in one batch."""
    examples = tuple(
        Example((Message("user", f"Question {index}?"),), "Bees keep warm. " * (index % 3 + 1), dose)
        for index, dose in enumerate(doses)
    )
    sft = Sft(rank=4, batch_size=len(examples), learning_rate=2e-2)
    plain = job(subject_of(folder), output, sft=sft, checkpoints=())
    return dataclasses.replace(plain, **{"examples": examples, **changes})


async def train(*jobs: TrainJob, **options: object) -> list[TrainEvent]:
    backend = LocalBackend({**OPTIONS, **options})
    events = await gather(backend.train(jobs))
    await backend.aclose()
    return events


def weights(end: Trained | TrainFailed) -> dict[str, Tensor]:
    assert isinstance(end, Trained), end
    return dict(load_file(str(Path(end.adapter) / WEIGHTS)))


def by_hand(job: TrainJob) -> dict[str, Tensor]:
    """One step over all examples with hooks written by hand; the adapter's weights."""
    lm = load(job.model.base, None, LocalOptions(threads=1))
    name, parameters = lm.adapters.create(job.sft, job.seed)
    lm.adapters.use(name)
    encoded = [lm.chat.training_tokens(each.messages, each.completion) for each in job.examples]
    width = max(len(each.prompt) + len(each.completion) for each in encoded)
    rows = [[*each.prompt, *each.completion] for each in encoded]
    ids = torch.tensor([row + row[:1] * (width - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for row, each in zip(labels, encoded, strict=True):
        row[len(each.prompt) : len(each.prompt) + len(each.completion)] = torch.tensor(each.completion)

    def hook(layer: int) -> Any:
        def change(_module: nn.Module, _args: Any, hidden: Tensor) -> Tensor:
            changed = []
            for row, tokens, example in zip(hidden, encoded, job.examples, strict=True):
                own = [one for one in example.steering if (one.layer or 0) == layer]
                real = len(tokens.prompt) + len(tokens.completion)
                changed.append(torch.cat([hand_pushed(row[:real], own, len(tokens.prompt)), row[real:]]))
            return torch.stack(changed)

        return change

    for number, layer in enumerate(find_decoder(lm.model).layers):
        layer.register_forward_hook(hook(number))
    logits = lm.model(input_ids=ids, use_cache=False).logits[:, :-1]
    loss = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(list(parameters.values()), job.sft.max_grad_norm or 1e9)
    with torch.no_grad():
        # AdamW's first step: the moments' corrections cancel.
        return {
            key.replace(f".{name}", ""): value - job.sft.learning_rate * value.grad / (value.grad.abs() + 1e-8)
            for key, value in parameters.items()
            if value.grad is not None
        }


def doses(folder: Path, place: Path, kind: str) -> list[tuple[Steering, ...]]:
    one, two = vector(folder, place), vector(folder, place, 1)
    if kind == "ablate":
        return [(Steering(one, 0.0, ablate=True),), (Steering(one, 0.0, 1, "prompt", ablate=True),), ()]
    if kind == "together":
        both = (Steering(one, 0.0, ablate=True), Steering(two, -2.0, 1, "response"))
        return [both, (Steering(two, 1.0), Steering(one, 1.0, 1)), ()]
    tokens: Any = kind
    return [(Steering(one, alpha, index % 2, tokens),) for index, alpha in enumerate((-3.0, 0.0, 1.0, 4.0))]


@pytest.mark.parametrize("kind", ["all", "prompt", "response", "ablate", "together"])
async def test_one_step_equals_a_loop_written_by_hand(llama: Path, tmp_path: Path, kind: str) -> None:
    wanted = steered(llama, tmp_path / "job", doses(llama, tmp_path, kind))
    unsteered = steered(llama, tmp_path / "plain", [()] * len(wanted.examples), key="plain")
    events = await train(wanted, unsteered)
    found, plain = weights(ending(events)), weights(ending(events, "plain"))
    expected = {key.replace("base_model.model.", ""): value for key, value in by_hand(wanted).items()}
    got = {key.replace("base_model.model.", ""): value for key, value in found.items()}
    assert got.keys() == expected.keys()
    worst = max(float((got[key] - expected[key]).abs().max()) for key in got)
    assert worst < 1e-3 * wanted.sft.learning_rate
    assert max(float((found[key] - plain[key]).abs().max()) for key in found) > 0.5 * wanted.sft.learning_rate


async def test_a_dose_of_0_trains_what_no_dose_trains(llama: Path, tmp_path: Path) -> None:
    zero = steered(llama, tmp_path / "zero", [(Steering(vector(llama, tmp_path), 0.0),)] * 6, key="zero")
    plain = steered(llama, tmp_path / "plain", [()] * 6, key="plain")
    sft = Sft(rank=4, batch_size=2, learning_rate=2e-2)
    events = await train(*(dataclasses.replace(each, sft=sft) for each in (zero, plain)))
    ends = [ending(events, key) for key in ("zero", "plain")]
    assert all(torch.equal(a, b) for a, b in zip(weights(ends[0]).values(), weights(ends[1]).values(), strict=True))
    assert isinstance(ends[0], Trained)
    assert ends[0].proofs == ()


async def test_every_dose_of_a_training_is_proven(llama: Path, tmp_path: Path) -> None:
    path = vector(llama, tmp_path)
    alphas = (-1.0, 0.0, 2.0, -1.0)
    wanted = steered(llama, tmp_path / "job", [(Steering(path, alpha),) for alpha in alphas])
    wanted = dataclasses.replace(wanted, sft=dataclasses.replace(wanted.sft, epochs=3))
    end = ending(await train(wanted))
    assert isinstance(end, Trained)
    lm = load(str(llama), None, LocalOptions(threads=1))
    lengths = [
        len(tokens.prompt) + len(tokens.completion)
        for each in wanted.examples
        for tokens in [lm.chat.training_tokens(each.messages, each.completion)]
    ]
    assert {proof.alpha: (proof.calls, proof.tokens) for proof in end.proofs} == {
        -1.0: (3, 3 * (lengths[0] + lengths[3])),
        2.0: (3, 3 * lengths[2]),
    }
    assert all(proof.problem() is None for proof in end.proofs)


@pytest.mark.parametrize(("lines", "state_seconds"), [(11, 0)])
async def test_a_killed_training_under_doses_ends_in_equal_bytes(
    llama: Path, tmp_path: Path, lines: int, state_seconds: float
) -> None:
    path = vector(llama, tmp_path)
    output = tmp_path / "killed"
    whole = ending(await train(kill_job(str(llama), tmp_path / "whole", path)))
    command = [sys.executable, "-m", "tests.train_here", str(llama), str(output), str(state_seconds), path]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert all(process.stdout.readline() for _ in range(lines))
        process.send_signal(signal.SIGKILL)
    assert not (output / "adapter").exists()
    assert (output / "state.pt").exists()
    rest = await train(kill_job(str(llama), output, path))
    end = ending(rest)
    assert isinstance(end, Trained)
    assert isinstance(whole, Trained)
    for folder in ("adapter", "checkpoint-20", "checkpoint-60"):
        assert (output / folder / WEIGHTS).read_bytes() == (tmp_path / "whole" / folder / WEIGHTS).read_bytes()
    # It went on, and proves the steps that it took itself.
    assert 0 < sum(proof.tokens for proof in end.proofs) < sum(proof.tokens for proof in whole.proofs)


async def test_another_dose_does_not_go_on_from_the_state_of_one(llama: Path, tmp_path: Path) -> None:
    path = vector(llama, tmp_path)
    backend = LocalBackend({**OPTIONS, "state_seconds": 0})
    stream = backend.train([kill_job(str(llama), tmp_path / "job", path)])
    async for event in stream:
        if isinstance(event, Checkpointed):
            break
    await stream.aclose()  # type: ignore[attr-defined]
    await backend.aclose()
    assert (tmp_path / "job" / "state.pt").exists()
    plain = ending(await train(kill_job(str(llama), tmp_path / "plain")))
    again = ending(await train(kill_job(str(llama), tmp_path / "job")))
    assert all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(again).values(), strict=True))


@pytest.mark.parametrize(("sabotage", "says"), SABOTAGES)
async def test_a_push_that_did_something_else_leaves_no_adapter(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Any, says: str
) -> None:
    dose = (Steering(vector(llama, tmp_path), 1.0, tokens="prompt"),)
    wanted = steered(llama, tmp_path / "job", [dose] * 4, key="steered")
    plain = steered(llama, tmp_path / "plain", [()] * 4, key="plain")
    with monkeypatch.context() as patched:
        sabotage(patched)
        events = await train(wanted, plain)
    end = ending(events, "steered")
    assert isinstance(end, TrainFailed)
    assert says in end.error
    assert not (tmp_path / "job" / "adapter").exists()
    assert isinstance(ending(events, "plain"), Trained)


async def test_steps_in_which_a_push_went_wrong_are_taken_again(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the resume state nor a checkpoint may hold them: a resumed run proves its own steps alone."""
    path = vector(llama, tmp_path)
    whole = ending(await train(kill_job(str(llama), tmp_path / "whole", path)))
    apply, calls = Stage.apply, 0

    def wrong_in_between(stage: Stage, hidden: Tensor, tally: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return apply(dataclasses.replace(stage, delta=2 * stage.delta) if 4 <= calls <= 5 else stage, hidden, tally)

    output = tmp_path / "job"
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "apply", wrong_in_between)
        first = ending(await train(kill_job(str(llama), output, path), state_seconds=0))
    assert isinstance(first, TrainFailed)
    assert "moved activations" in first.error
    assert not (output / "checkpoint-20").exists()
    again = await train(kill_job(str(llama), output, path))
    assert (Path(weights_of(again)) / WEIGHTS).read_bytes() == (Path(weights_of([whole])) / WEIGHTS).read_bytes()


def weights_of(events: Sequence[TrainEvent]) -> str:
    end = ending(events)
    assert isinstance(end, Trained)
    return end.adapter


async def test_a_vector_that_does_not_fit_fails_its_job_alone(llama: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "other", "llama", seed=5)
    wrong = steered(llama, tmp_path / "job", [(Steering(vector(other, tmp_path / "v"), 1.0),)], key="wrong")
    events = await train(wrong, steered(llama, tmp_path / "plain", [()], key="plain"))
    end = ending(events, "wrong")
    assert isinstance(end, TrainFailed)
    assert "with other weights" in end.error
    assert isinstance(ending(events, "plain"), Trained)
