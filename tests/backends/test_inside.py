"""What backend `local` reads inside a model, against plain torch, transformers and PEFT."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.backend_contract import ending, gather, job
from tests.backends.test_steered_backend import OPTIONS, hand_pushed, opened, subject_of, vector
from tests.tiny_models import build
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.cluster.named_files import named_files, renamed
from windowshift.backends.local.residual_gradient import random_directions
from windowshift.core.contract.generation import Message, Model, Steering
from windowshift.core.contract.inside import (
    Differentiated,
    Gradient,
    GradientJob,
    InsideBackend,
    InsideEvent,
    InsideFailed,
    Passage,
    Projected,
    Projection,
    ProjectionJob,
)
from windowshift.core.contract.training import Example, Sft, TextLogprob, Trained, TrainEvent, TrainJob, Watched
from windowshift.core.contract.vector_file import Provenance
from windowshift.core.contract.vector_job import ExtractTokens
from windowshift.steering.architecture import find_decoder
from windowshift.steering.vector import SteeringVector

torch.set_num_threads(1)

PASSAGES = (
    Passage((Message("user", "What do bees do in the winter?"),), "They gather in a ball."),
    Passage((Message("user", "Rivers?"),), "They keep warm together, and eat honey."),
    Passage((Message("system", "Say little."), Message("user", "And rivers?")), "R"),
)


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A tiny model, an adapter of it, and two vectors, the second without a direction at layer 1."""

    folder: Path
    adapter: str
    vectors: tuple[str, str]


@pytest.fixture(scope="module")
async def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    place = tmp_path_factory.mktemp("inside")
    folder = build(place / "llama", "llama")
    backend = LocalBackend(OPTIONS)
    sft = Sft(rank=4, batch_size=2, learning_rate=5e-2)
    end = ending(await gather(backend.train([job(subject_of(folder), place / "out", sft=sft, checkpoints=())])))
    await backend.aclose()
    assert isinstance(end, Trained)
    half = SteeringVector.load(vector(folder, place / "vectors", seed=1)).directions.copy()
    half[1] = 0
    made = SteeringVector.make("half", half, Provenance("tiny", opened(folder).fingerprint, "test"))
    made.save(place / "half.safetensors")
    return Tuned(folder, end.adapter, (vector(folder, place / "vectors"), str(place / "half.safetensors")))


async def look(*jobs: Any) -> list[InsideEvent]:
    backend = LocalBackend(OPTIONS)
    assert isinstance(backend, InsideBackend)
    try:
        return await gather(backend.look_inside(jobs))
    finally:
        await backend.aclose()


def projection(
    tuned: Tuned, tokens: ExtractTokens, passages: Sequence[Passage] = PASSAGES, adapter: str | None = None
) -> ProjectionJob:
    return ProjectionJob("p", Model(str(tuned.folder), adapter=adapter), passages, tokens, tuned.vectors)


async def projected(*arguments: Any, **more: Any) -> tuple[Projection, ...]:
    (event,) = await look(projection(*arguments, **more))
    assert isinstance(event, Projected), event
    return event.rows


def plain(tuned: Tuned, adapter: str | None = None) -> Any:
    """The model, or the fine-tune, as transformers and PEFT have it, in float64."""
    model: Any = AutoModelForCausalLM.from_pretrained(tuned.folder).eval()
    return (model if adapter is None else PeftModel.from_pretrained(model, adapter)).double()


def streams(tuned: Tuned, passage: Passage, *, whole: bool, adapter: str | None = None) -> tuple[Tensor, int]:
    """The residual stream [layers, tokens, width] of a passage by plain hooks, and how long its prompt is."""
    model, seen = plain(tuned, adapter), []
    tokens = opened(tuned.folder).chat.training_tokens(passage.messages, passage.completion)

    def hook(layer: int) -> Any:
        def push(_module: Any, _given: Any, out: Any) -> Any:
            hidden = out[0] if isinstance(out, tuple) else out
            own = [one for one in passage.steering if one.layer == layer]
            hidden = hand_pushed(hidden[0], own, len(tokens.prompt))[None]
            seen.append(hidden)
            return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

        return push

    for layer, module in enumerate(find_decoder(model).layers):
        module.register_forward_hook(hook(layer))
    ids = [*tokens.prompt, *tokens.completion] if whole else list(tokens.prompt)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    return torch.cat(seen), len(tokens.prompt)


@pytest.mark.parametrize(
    ("tokens", "of"),
    [("response", "adapter"), ("last_prompt", "adapter"), ("prompt", "base"), ("last_prompt", "base")],
)
async def test_projections_are_those_of_plain_transformers_and_peft(
    tuned: Tuned, tokens: ExtractTokens, of: str
) -> None:
    adapter = tuned.adapter if of == "adapter" else None
    for passage, found in zip(PASSAGES, await projected(tuned, tokens, adapter=adapter), strict=True):
        hidden, length = streams(tuned, passage, whole=tokens == "response", adapter=adapter)
        span = {"response": slice(length, None), "last_prompt": slice(length - 1, length), "prompt": slice(length)}
        own = hidden[:, span[tokens]]
        counted = own[:, 1:] if tokens == "prompt" else own  # the first token's norm is an outlier
        assert found.tokens == own.shape[1]
        assert found.rms == pytest.approx(counted.square().sum(-1).mean(1).sqrt().tolist(), rel=1e-9)
        for file, along in zip(tuned.vectors, found.along, strict=True):
            directions = torch.from_numpy(SteeringVector.load(file).directions.copy()).double()
            for layer, value in enumerate(along):
                norm = directions[layer].norm()
                if norm == 0:
                    assert value is None
                else:
                    by_hand = float((own[layer].mean(0) @ directions[layer]) / norm)
                    assert value == pytest.approx(by_hand, rel=1e-9, abs=1e-9)


async def test_a_push_is_in_the_stream_that_is_read(tuned: Tuned) -> None:
    pushed = dataclasses.replace(PASSAGES[0], steering=(Steering(tuned.vectors[0], 2.0, 0, "all"),))
    plain_rows = await projected(tuned, "last_prompt", [PASSAGES[0]])
    rows = await projected(tuned, "last_prompt", [pushed, PASSAGES[1]])
    hidden, length = streams(tuned, pushed, whole=False)
    unit = torch.from_numpy(SteeringVector.load(tuned.vectors[0]).directions.copy()).double()
    unit = unit / unit.norm(dim=1, keepdim=True)
    assert rows[0].along[0] == pytest.approx([float(hidden[at, length - 1] @ unit[at]) for at in (0, 1)], rel=1e-6)
    moved, before = rows[0].along[0][0], plain_rows[0].along[0][0]
    assert moved is not None
    assert before is not None
    size = float(SteeringVector.load(tuned.vectors[0]).norms[0])
    assert moved - before == pytest.approx(2.0 * size, rel=1e-5)
    assert rows[1] == (await projected(tuned, "last_prompt", [PASSAGES[1]]))[0]  # whatever is read beside it


async def test_a_model_that_shares_its_weights_reads_passages_together(tuned: Tuned) -> None:
    pushed = dataclasses.replace(PASSAGES[1], steering=(Steering(tuned.vectors[0], 2.0, 0, "all"),))
    wanted = projection(tuned, "response", [PASSAGES[0], pushed, PASSAGES[2]], adapter=tuned.adapter)
    shared = LocalBackend({**OPTIONS, "dtype": "float32"})
    try:
        (event,) = await gather(shared.look_inside([wanted]))
        again, gradient = await gather(shared.look_inside([wanted, gradients(tuned)]))  # nothing is left behind
    finally:
        await shared.aclose()
    assert isinstance(gradient, Differentiated), gradient
    assert event == again
    (alone,) = await look(wanted)
    assert isinstance(event, Projected)
    assert isinstance(alone, Projected)
    for one, other in zip(event.rows, alone.rows, strict=True):
        assert one.along[0] == pytest.approx(other.along[0], rel=1e-3, abs=1e-4)
        assert one.rms == pytest.approx(other.rms, rel=1e-4)


@pytest.mark.slow
async def test_workers_read_the_same_to_the_byte(tuned: Tuned) -> None:
    jobs = (
        projection(tuned, "response", adapter=tuned.adapter),
        dataclasses.replace(projection(tuned, "prompt"), key="q"),
        GradientJob("g", Model(str(tuned.folder)), TEXTS, SFT, 3, tuned.vectors[0], 0, 12),
    )
    alone = {one.key: one for one in await look(*jobs)}
    crew = LocalBackend({**OPTIONS, "workers": 2})
    try:
        assert {one.key: one for one in await gather(crew.look_inside(jobs))} == alone
    finally:
        await crew.aclose()
    files = named_files(jobs)
    assert set(files) == {tuned.adapter, *tuned.vectors}
    elsewhere = renamed(jobs, lambda path: f"/there{path}")
    assert [one.vectors for one in elsewhere[:2]] == [tuple(f"/there{path}" for path in tuned.vectors)] * 2
    assert elsewhere[0].model.adapter == f"/there{tuned.adapter}"
    assert elsewhere[2].vector == f"/there{tuned.vectors[0]}"


async def test_what_cannot_be_read_stays_missing_with_its_reason(tuned: Tuned) -> None:
    long = Passage((Message("user", "word " * 400),), "")
    given_up = dataclasses.replace(PASSAGES[0], problem="it has no answer")
    rows = await projected(tuned, "last_prompt", [long, given_up, PASSAGES[1]])
    assert rows[0].problem is not None
    assert "more than the 256 of the model's context" in rows[0].problem
    assert rows[1] == Projection(problem="it has no answer")
    assert rows[2].problem is None


async def test_a_bad_job_is_one_sentence_and_leaves_the_others_alone(tuned: Tuned, tmp_path: Path) -> None:
    good = projection(tuned, "last_prompt")
    other = build(tmp_path / "other", "llama", seed=1)
    strange = dataclasses.replace(good, key="strange", vectors=(vector(other, tmp_path),))
    lost = dataclasses.replace(good, key="lost", model=Model(str(tuned.folder), adapter=str(tmp_path / "none")))
    found = {one.key: one for one in await look(strange, lost, good)}
    for key, said in (("strange", "was made on"), ("lost", "none")):
        failed = found[key]
        assert isinstance(failed, InsideFailed)
        assert said in failed.error
        assert "\n" not in failed.error
    assert isinstance(found["p"], Projected)


# -- watched texts ----------------------------------------------------------------------------------

TEXTS = tuple(Example(passage.messages, passage.completion) for passage in PASSAGES)
AT = (0, 4, 7, 10)


def training(tuned: Tuned, output: Path, **changes: Any) -> TrainJob:
    """Ten examples in batches of two, with checkpoints where texts are read."""
    sft = Sft(rank=4, batch_size=2, learning_rate=5e-2)
    plain_job = job(subject_of(tuned.folder), output, sft=sft, checkpoints=(4, 7))
    return dataclasses.replace(plain_job, **changes)


def watching(tuned: Tuned, output: Path, **changes: Any) -> TrainJob:
    return training(tuned, output, **({"watched": TEXTS, "watched_at": AT} | changes))


async def train(*wanted: TrainJob, until: int | None = None, **options: Any) -> list[TrainEvent]:
    """The events; the training is interrupted once texts were read after `until` examples."""
    backend = LocalBackend({**OPTIONS, **options})
    found: list[TrainEvent] = []
    try:
        async with contextlib.aclosing(backend.train(wanted)) as stream:
            async for event in stream:
                found.append(event)
                if isinstance(event, Watched) and event.examples == until:
                    break
    finally:
        await backend.aclose()
    return found


def watched_in(events: Sequence[TrainEvent], key: str = "job") -> dict[int, tuple[TextLogprob, ...]]:
    return {one.examples: one.texts for one in events if isinstance(one, Watched) and one.key == key}


def written(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


def likely(tuned: Tuned, text: Example, adapter: str | None) -> tuple[float, int]:
    """The log-probability of a text by transformers and PEFT, and its tokens."""
    tokens = opened(tuned.folder).chat.training_tokens(text.messages, text.completion)
    with torch.no_grad():
        logits = plain(tuned, adapter)(input_ids=torch.tensor([[*tokens.prompt, *tokens.completion]])).logits[0]
    drawn = torch.log_softmax(logits, dim=-1)
    start = len(tokens.prompt) - 1
    found = sum(float(drawn[start + place, token]) for place, token in enumerate(tokens.completion))
    return found, len(tokens.completion)


async def test_watched_texts_are_as_likely_as_transformers_and_peft_have_them(tuned: Tuned, tmp_path: Path) -> None:
    found = watched_in(await train(watching(tuned, tmp_path / "out")))
    assert tuple(found) == AT
    adapters = {0: None, 4: "checkpoint-4", 7: "checkpoint-7", 10: "adapter"}
    for at, texts in found.items():
        name = adapters[at]
        for text, read in zip(TEXTS, texts, strict=True):
            value, tokens = likely(tuned, text, None if name is None else str(tmp_path / "out" / name))
            assert read.logprob == pytest.approx(value, rel=1e-5)
            assert (read.tokens, read.problem) == (tokens, None)
    assert found[0] != found[10]


async def test_watching_changes_no_byte_of_what_is_trained_alone_or_stacked(tuned: Tuned, tmp_path: Path) -> None:
    await train(training(tuned, tmp_path / "plain"))
    alone = await train(watching(tuned, tmp_path / "watched"))
    beside = (
        watching(tuned, tmp_path / "stacked" / "a", key="a"),
        training(tuned, tmp_path / "stacked" / "b", key="b"),
        watching(tuned, tmp_path / "stacked" / "c", key="c", seed=11),
    )
    together = await train(*beside)
    plain_files = written(tmp_path / "plain")
    assert len(plain_files) == 3  # two checkpoints and the end
    for name in ("watched", "stacked/a", "stacked/b"):
        assert written(tmp_path / name) == plain_files, name
    assert written(tmp_path / "stacked" / "c") != plain_files
    assert watched_in(together, "a") == watched_in(alone)
    assert watched_in(together, "b") == {}
    assert watched_in(together, "c")[0] == watched_in(alone)[0]  # the base model


@pytest.mark.parametrize("until", [pytest.param(0, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)])
async def test_an_interrupted_training_goes_on_watching_to_the_byte(tuned: Tuned, tmp_path: Path, until: int) -> None:
    whole = watched_in(await train(watching(tuned, tmp_path / "whole")))
    part = watching(tuned, tmp_path / "part")
    before = watched_in(await train(part, until=until, state_seconds=0))
    after = watched_in(await train(part, state_seconds=0))
    assert max(before) == until
    assert before | after == whole
    assert written(tmp_path / "part") == written(tmp_path / "whole")
    assert watched_in(await train(part)) == whole  # a finished one tells all again


async def test_readings_that_are_lost_are_missing_with_their_reason(tuned: Tuned, tmp_path: Path) -> None:
    whole = watched_in(await train(watching(tuned, tmp_path / "whole")))
    part = watching(tuned, tmp_path / "part")
    await train(part, until=4, state_seconds=0)
    kept = tmp_path / "part" / "watched.json"
    kept.unlink()
    after = watched_in(await train(part, state_seconds=0))
    why = "its reading is lost: watched.json beside the adapter is not there any more, or of another training"
    lost = (TextLogprob(None, problem=why),) * len(TEXTS)
    assert set(after) == set(AT)  # none vanishes, wherever it goes on
    assert all(texts in (whole[at], lost) for at, texts in after.items())
    finished = tmp_path / "whole" / "watched.json"
    told = json.loads(finished.read_text(encoding="utf-8"))
    del told["texts"]["4"]
    finished.write_text(json.dumps(told), encoding="utf-8")
    assert watched_in(await train(watching(tuned, tmp_path / "whole"))) == {**whole, 4: lost}
    finished.write_text('{"signature": ', encoding="utf-8")  # cut off
    assert watched_in(await train(watching(tuned, tmp_path / "whole"))) == dict.fromkeys(AT, lost)


@pytest.mark.slow
async def test_a_text_that_cannot_be_read_stays_missing_with_its_reason(tuned: Tuned, tmp_path: Path) -> None:
    long = Example((Message("user", "word " * 400),), "Yes.")
    found = watched_in(await train(watching(tuned, tmp_path, watched=(TEXTS[0], long, TEXTS[1]))))
    for texts in found.values():
        assert texts[1].logprob is None
        assert texts[1].problem is not None
        assert "more than the 256 of the model's context" in texts[1].problem
        assert all(texts[place].logprob is not None for place in (0, 2))
    plain_texts = watched_in(await train(watching(tuned, tmp_path / "plain")))
    assert {at: texts[2] for at, texts in found.items()} == {at: texts[1] for at, texts in plain_texts.items()}


# -- gradients --------------------------------------------------------------------------------------

LEARNED = (
    Example((Message("user", "What do bees do in the winter?"),), "They gather in a ball."),
    Example((Message("user", "Rivers?"),), "They keep warm together, and eat honey.", weight=0.5),
    Example((Message("system", "Say little."), Message("user", "And rivers?")), "R"),
)
SFT = Sft(rank=4, batch_size=2, learning_rate=5e-2)


def gradients(tuned: Tuned, examples: Sequence[Example] = LEARNED, layer: int = 0, **model: Any) -> GradientJob:
    return GradientJob("g", Model(str(tuned.folder), **model), examples, SFT, 3, tuned.vectors[0], layer, 12)


async def differentiated(wanted: GradientJob) -> tuple[Gradient, ...]:
    (event,) = await look(wanted)
    assert isinstance(event, Differentiated), event
    return event.rows


def by_autograd(tuned: Tuned, example: Example, layer: int, adapter: str | None = None) -> Tensor:
    """The gradient of an example's loss on a shift of the stream at every position that writes its completion."""
    model = plain(tuned, adapter)
    tokens = opened(tuned.folder).chat.training_tokens(example.messages, example.completion)
    first, count = len(tokens.prompt) - 1, len(tokens.completion)
    shift = torch.zeros(model.config.hidden_size, dtype=torch.float64, requires_grad=True)

    def moved(_module: Any, _given: Any, out: Any) -> Any:
        hidden = out[0] if isinstance(out, tuple) else out
        place = torch.arange(hidden.shape[1])
        chosen = ((place >= first) & (place < first + count)).double()[None, :, None]
        for push in example.steering:
            hidden = hand_pushed(hidden[0], [push], len(tokens.prompt))[None] if push.layer == layer else hidden
        changed = hidden + chosen * shift
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    find_decoder(model).layers[layer].register_forward_hook(moved)
    logits = model(input_ids=torch.tensor([[*tokens.prompt, *tokens.completion]])).logits[0]
    drawn = torch.log_softmax(logits[first : first + count], dim=-1)
    loss = -drawn.gather(1, torch.tensor(tokens.completion)[:, None]).sum() * example.weight
    return torch.autograd.grad(loss, shift)[0]


@pytest.mark.parametrize(
    ("layer", "of"),
    [pytest.param(0, "base", marks=pytest.mark.slow), pytest.param(1, "base", marks=pytest.mark.slow), (0, "adapter")],
)
async def test_gradients_are_those_of_a_shift_of_the_stream(tuned: Tuned, layer: int, of: str) -> None:
    adapter = tuned.adapter if of == "adapter" else None
    steered = dataclasses.replace(LEARNED[0], steering=(Steering(tuned.vectors[0], 1.5, layer, "response"),))
    examples = (*LEARNED, steered)
    rows = await differentiated(gradients(tuned, examples, layer, adapter=adapter))
    by_hand = [by_autograd(tuned, example, layer, adapter) for example in examples]
    unit = torch.from_numpy(SteeringVector.load(tuned.vectors[0]).directions[layer].copy()).double()
    unit = unit / unit.norm()
    sides = random_directions(12, len(unit))
    assert torch.allclose(sides.norm(dim=1), torch.ones(12, dtype=torch.float64))
    for place, (row, own, example) in enumerate(zip(rows, by_hand, examples, strict=True)):
        close = {"rel": 2e-3, "abs": 2e-4 * float(own.norm())}
        assert row.along == pytest.approx(-float(own @ unit), **close)
        assert row.random == pytest.approx((-(sides @ own)).tolist(), **close)
        others = [float(own @ other) for other in by_hand[: place + 1]]
        assert row.inner == pytest.approx(others, rel=2e-3, abs=2e-4 * max(map(abs, others)))
        tokens = opened(tuned.folder).chat.training_tokens(example.messages, example.completion)
        assert (row.tokens, row.problem) == (len(tokens.completion), None)
    assert await differentiated(gradients(tuned, examples, layer, adapter=adapter)) == rows  # to the byte


async def test_an_example_that_cannot_be_learned_has_no_gradient_and_says_why(tuned: Tuned) -> None:
    long = Example((Message("user", "word " * 400),), "Yes.")
    rows = await differentiated(gradients(tuned, (LEARNED[0], long, LEARNED[2])))
    assert rows[1].along is None
    assert rows[1].problem is not None
    assert "more than the 256 of the model's context" in rows[1].problem
    without = await differentiated(gradients(tuned, (LEARNED[0], LEARNED[2])))
    assert [rows[0], dataclasses.replace(rows[2], inner=(rows[2].inner[0], rows[2].inner[2]))] == list(without)
    assert rows[2].inner[1] is None
