"""Backend `local` under steering: sampling, coherence and vectors, against hooks written by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tests.backend_contract import Subject, answers, ending, gather, job, request
from tests.tiny_models import ARCHITECTURES, build, config, tokenizer
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import CausalLM, load
from windowshift.backends.local.options import LocalOptions
from windowshift.core.contract.generation import Message, Model, Sampling, Steering, Tokens
from windowshift.core.contract.training import Sft, Trained, TrainFailed
from windowshift.core.contract.vector_file import Provenance
from windowshift.core.contract.vector_job import (
    Answered,
    Combination,
    Control,
    Difference,
    Stored,
    VectorFailed,
    VectorJob,
    VectorMade,
    VectorSource,
)
from windowshift.steering.architecture import find_decoder
from windowshift.steering.stage import Stage
from windowshift.steering.vector import SteeringVector

torch.set_num_threads(1)
OPTIONS = {"threads": 1, "batch_rows": 6, "workers": 1}
GREEDY = Sampling(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models, one for each architecture."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ARCHITECTURES:
        build(folder / kind, kind)
    build(folder / "unlike", "llama", seed=1)
    build(folder / "wide", "llama", hidden_size=48)
    return folder


@cache
def opened(folder: Path, dtype: str = "float64") -> CausalLM:
    return load(str(folder), None, LocalOptions(threads=1, dtype=dtype))


def vector(folder: Path, place: Path, seed: int = 0, **changes: Any) -> str:
    """A random vector of the model in `folder`."""
    lm = opened(folder)
    numbers = np.random.default_rng(seed).normal(size=(2, lm.model.config.hidden_size))
    provenance = Provenance("tiny", lm.fingerprint, "test")
    made = SteeringVector.make(f"v{seed}", numbers, provenance, layer=0, rms=(2.0, 3.0))
    if changes:
        made = dataclasses.replace(made, header=dataclasses.replace(made.header, **changes))
    place.mkdir(parents=True, exist_ok=True)
    made.save(place / f"v{seed}.safetensors", force=True)
    return str(place / f"v{seed}.safetensors")


def subject_of(folder: Path, **options: object) -> Subject:
    return Subject(lambda: LocalBackend({**OPTIONS, **options}), Model(str(folder)), "./no/such", "word " * 400)


def hand_pushed(h: Tensor, steering: Sequence[Steering], prompt: int) -> Tensor:
    """What steering does to the stream [tokens, width] of one row whose prompt has `prompt` tokens."""
    place = torch.arange(len(h))[:, None]
    for each in sorted(steering, key=lambda one: not one.ablate):
        v = torch.from_numpy(SteeringVector.load(each.vector).direction(each.layer).astype(np.float64)).to(h.dtype)
        chosen = {"all": place >= 0, "prompt": place < prompt, "response": place >= prompt}[each.tokens]
        q = v / v.norm()
        changed = h - (h @ q)[:, None] * q if each.ablate else h + each.alpha * v
        h = torch.where(chosen, changed, h)
    return h


def hand_written(
    folder: Path, messages: tuple[Message, ...], steering: Sequence[Steering], adapter: str | None = None
) -> str:
    """The text of `hand_drawn`."""
    return opened(folder).chat.text(hand_drawn(folder, messages, steering, adapter))


def hand_drawn(
    folder: Path, messages: tuple[Message, ...], steering: Sequence[Steering], adapter: str | None = None
) -> list[int]:
    """Greedy decoding without a cache, with a hook at every layer that something is pushed at."""
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model = model.double()
    lm = opened(folder)
    ids = lm.chat.prompt_ids(messages)
    prompt = len(ids)

    def hook(layer: int) -> Any:
        own = [one for one in steering if (0 if one.layer is None else one.layer) == layer]

        def change(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            changed = hand_pushed(hidden[0], own, prompt)[None]
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return change

    for number, layer in enumerate(find_decoder(model).layers):
        layer.register_forward_hook(hook(number))
    with torch.no_grad():
        while len(ids) < prompt + GREEDY.max_tokens:
            drawn = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if drawn in lm.end_ids:
                break
            ids.append(drawn)
    return ids[prompt:]


async def trained(folder: Path, output: Path, *steering: Steering, **changes: Any) -> Trained:
    backend = LocalBackend(OPTIONS)
    plain = job(subject_of(folder), output, sft=Sft(rank=4, batch_size=5, learning_rate=3e-2), checkpoints=())
    examples = [dataclasses.replace(one, steering=steering) for one in plain.examples]
    end = ending(await gather(backend.train([dataclasses.replace(plain, examples=examples, **changes)])))
    await backend.aclose()
    assert isinstance(end, Trained), end
    return end


# -- sampling ---------------------------------------------------------------------------------------

WAYS: list[tuple[str, list[dict[str, Any]]]] = [
    ("all tokens", [{"alpha": 2.0}]),
    ("prompt tokens, downwards", [{"alpha": -2.0, "tokens": "prompt"}]),
    ("response tokens at another layer", [{"alpha": 3.0, "tokens": "response", "layer": 1}]),
    ("an ablation", [{"alpha": 0.0, "ablate": True}]),
    ("two vectors", [{"alpha": 1.5}, {"alpha": -1.0, "seed": 1, "layer": 1}]),
    ("an ablation and a push", [{"alpha": 0.0, "ablate": True, "seed": 1}, {"alpha": 2.0}]),
]


def asked(folder: Path, place: Path, way: Sequence[dict[str, Any]]) -> tuple[Steering, ...]:
    return tuple(
        Steering(vector(folder, place, each.get("seed", 0)), **{k: v for k, v in each.items() if k != "seed"})
        for each in way
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
async def test_a_steered_request_equals_a_hand_written_hook(models: Path, tmp_path: Path, kind: str) -> None:
    subject = subject_of(models / kind)
    backend = subject.make()
    wanted = {name: asked(models / kind, tmp_path, way) for name, way in WAYS}
    plain = request(subject, "plain", sampling=GREEDY)
    found = await answers(
        backend, [plain, *(dataclasses.replace(plain, key=name, steering=each) for name, each in wanted.items())]
    )
    await backend.aclose()
    for name, steering in wanted.items():
        assert found[name].text == hand_written(models / kind, plain.messages, steering), name
        assert found[name].finish != "failed"
    assert len({each.text for each in found.values()}) > len(WAYS) // 2


async def test_rows_with_their_own_alphas_equal_the_rows_alone(models: Path, tmp_path: Path) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    path = vector(models / "llama", tmp_path)
    tokens: tuple[Tokens, ...] = ("all", "prompt", "response")
    requests = [
        request(
            subject,
            f"r{index}",
            "bees " * (index % 4 + 1),
            seed=index,
            steering=(Steering(path, index - 6.0, index % 2, tokens[index % 3]),) if index % 4 else (),
        )
        for index in range(14)
    ]
    together = await answers(backend, requests)
    for each in requests:
        alone = (await answers(backend, [each]))[each.key]
        assert dataclasses.replace(alone, proofs=()) == dataclasses.replace(together[each.key], proofs=())
        assert bool(alone.proofs) == bool(each.steering and each.steering[0].alpha)
    await backend.aclose()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
async def test_alpha_0_equals_no_steering_exactly(models: Path, tmp_path: Path, dtype: str) -> None:
    subject = subject_of(models / "llama", dtype=dtype)
    backend = subject.make()
    path = vector(models / "llama", tmp_path)
    plain = [request(subject, str(seed), seed=seed) for seed in range(5)]
    zero = [dataclasses.replace(each, steering=(Steering(path, 0.0),)) for each in plain]
    assert await answers(backend, zero) == await answers(backend, plain)
    await backend.aclose()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
async def test_steering_acts_on_an_adapter(models: Path, tmp_path: Path, dtype: str) -> None:
    adapter = (await trained(models / "llama", tmp_path / "job")).adapter
    path = vector(models / "llama", tmp_path)
    subject = subject_of(models / "llama", dtype=dtype)
    backend = subject.make()
    tuned = dataclasses.replace(subject.model, adapter=adapter)
    requests = [
        request(subject, f"{model is tuned} {alpha}", model=model, sampling=GREEDY, steering=(Steering(path, alpha),))
        for model in (subject.model, tuned)
        for alpha in (-2.0, 0.0, 2.0)
    ]
    found = await answers(backend, requests)
    await backend.aclose()
    for each in requests:
        expected = hand_written(models / "llama", each.messages, each.steering, each.model.adapter)
        assert found[each.key].text == expected, each.key


async def test_every_steered_completion_is_proven_once(models: Path, tmp_path: Path) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    path = vector(models / "llama", tmp_path)
    requests = [
        request(subject, f"{alpha} {seed}", seed=seed, steering=(Steering(path, alpha),))
        for alpha in (-1.0, 2.0)
        for seed in range(4)
    ]
    found = await answers(backend, requests)
    await backend.aclose()
    norm = SteeringVector.load(path).norms[0]
    for alpha in (-1.0, 2.0):
        own = [found[f"{alpha} {seed}"] for seed in range(4)]
        (proof,) = (proof for each in own for proof in each.proofs)
        assert (proof.vector, proof.layer, proof.alpha) == ("v0", 0, alpha)
        assert proof.calls == proof.calls_asked >= 12
        # Every token of the prompt, and each that was fed back: the last one that is drawn is not.
        fed = sum(each.prompt_tokens + each.tokens - (each.finish == "length") for each in own)
        assert proof.tokens == proof.tokens_asked == fed
        assert proof.change == pytest.approx(abs(alpha) * norm, rel=1e-6)


async def test_groups_are_proven_apart(models: Path, tmp_path: Path) -> None:
    """As jobs that push in the same way are, each of which records its own proof."""
    subject = subject_of(models / "llama")
    backend = subject.make()
    steering = (Steering(vector(models / "llama", tmp_path), 2.0),)
    together = [request(subject, str(seed), seed=seed, steering=steering) for seed in range(6)]
    apart = [dataclasses.replace(each, group=str(int(each.key) // 2)) for each in together]
    one, many = await answers(backend, together), await answers(backend, apart)
    await backend.aclose()
    assert {key: each.text for key, each in one.items()} == {key: each.text for key, each in many.items()}
    whole = sum(proof.tokens for each in one.values() for proof in each.proofs)
    for group in ("0", "1", "2"):
        own = [many[each.key] for each in apart if each.group == group]
        (proof,) = (proof for each in own for proof in each.proofs)
        fed = sum(each.prompt_tokens + each.tokens - (each.finish == "length") for each in own)
        assert proof.tokens == proof.tokens_asked == fed
        whole -= proof.tokens
    assert whole == 0


def unhooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that is run without its hooks, as compiled or fused implementations do."""
    forward = LlamaDecoderLayer.forward
    monkeypatch.setattr(LlamaDecoderLayer, "__call__", lambda self, *args, **named: forward(self, *args, **named))


def doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push that is twice as strong as was asked."""
    apply = Stage.apply

    def wrong(stage: Stage, hidden: Tensor, tally: Tensor) -> Tensor:
        return apply(dataclasses.replace(stage, delta=2 * stage.delta), hidden, tally)

    monkeypatch.setattr(Stage, "apply", wrong)


def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push on all tokens where the prompt's were asked."""
    apply = Stage.apply

    def wrong(stage: Stage, hidden: Tensor, tally: Tensor) -> Tensor:
        return apply(dataclasses.replace(stage, _weight=torch.ones_like(stage._weight)), hidden, tally)

    monkeypatch.setattr(Stage, "apply", wrong)


SABOTAGES = [(unhooked, "did not fire"), (doubled, "moved activations by"), (everywhere, "changed")]


@pytest.mark.parametrize(("sabotage", "says"), SABOTAGES)
async def test_a_push_that_did_something_else_gives_no_text(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Any, says: str
) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    path = vector(models / "llama", tmp_path)
    requests = [
        request(subject, f"r{seed}", "bees " * (seed + 1), seed=seed, steering=(Steering(path, 1.0, tokens="prompt"),))
        for seed in range(3)
    ]
    with monkeypatch.context() as patched:
        sabotage(patched)
        found = await answers(backend, requests)
        plain = await answers(backend, [request(subject, "plain")])
    assert plain["plain"].finish != "failed"
    for each in found.values():
        assert (each.finish, each.text) == ("failed", "")
        assert says in (each.error or "")
    after = await answers(backend, requests)
    await backend.aclose()
    assert all(each.finish != "failed" for each in after.values())


async def test_vectors_that_do_not_fit_fail_their_requests_alone(models: Path, tmp_path: Path) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    damaged = vector(models / "llama", tmp_path / "nan")
    Path(damaged).write_bytes(Path(damaged).read_bytes()[:-4] + np.float32("nan").tobytes())
    fine = vector(models / "llama", tmp_path / "fine")
    wrong = {
        "another model's": (Steering(vector(models / "unlike", tmp_path / "other"), 1.0), "with other weights"),
        "wide": (Steering(vector(models / "wide", tmp_path / "wide"), 1.0), "width 48, but the model's hidden size"),
        "NaN": (Steering(damaged, 1.0), "holds NaN or infinity"),
        "not there": (Steering(str(tmp_path / "none"), 1.0), "cannot read vector"),
        "no layer": (Steering(fine, 1.0, layer=2), "has no layer 2: its layers are 0 to 1"),
        "layer -1": (Steering(fine, 1.0, layer=-1), "has no layer -1"),
        "infinite": (Steering(fine, float("inf")), "alpha must be a finite number"),
        "alpha NaN": (Steering(fine, float("nan")), "alpha must be a finite number"),
    }
    requests = [request(subject, name, steering=(steering,)) for name, (steering, _) in wrong.items()]
    found = await answers(
        backend, [*requests, request(subject, "plain"), request(subject, "fine", steering=(Steering(fine, 1.0),))]
    )
    await backend.aclose()
    for name, (_, says) in wrong.items():
        assert (found[name].finish, found[name].text) == ("failed", ""), name
        assert says in (found[name].error or ""), name
    assert found["plain"].finish != "failed"
    assert found["fine"].proofs


# -- coherence --------------------------------------------------------------------------------------


def hand_logprob(folder: Path, messages: tuple[Message, ...], drawn: Sequence[int]) -> float:
    """Of drawn tokens, without the end token, under the plain base model."""
    prompt = opened(folder).chat.prompt_ids(messages)
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *drawn]])).logits[0]
    logprobs = torch.log_softmax(logits, -1)
    return sum(float(logprobs[len(prompt) + at - 1, token]) for at, token in enumerate(drawn))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
async def test_coherence_is_the_log_probability_under_the_plain_base_model(
    models: Path, tmp_path: Path, dtype: str
) -> None:
    folder = models / "llama"
    adapter = (await trained(folder, tmp_path / "job")).adapter
    subject = subject_of(folder, dtype=dtype)
    backend = subject.make()
    steering = (Steering(vector(folder, tmp_path), 2.0),)
    tuned = dataclasses.replace(subject.model, adapter=adapter)
    plain = [
        request(subject, f"{kind} {words}", "bees " * words, model=model, steering=pushed, sampling=GREEDY)
        for kind, model, pushed in (
            ("base", subject.model, ()),
            ("steered", subject.model, steering),
            ("tuned and steered", tuned, steering),
        )
        for words in range(1, 6)
    ]
    requests = [dataclasses.replace(each, coherence=not each.key.endswith("3")) for each in plain]
    found = await answers(backend, requests)
    await backend.aclose()
    for each in requests:
        drawn = hand_drawn(folder, each.messages, each.steering, each.model.adapter)
        assert found[each.key].tokens == len(drawn)
        if not each.coherence or not drawn:
            assert found[each.key].logprob is None
        else:
            assert found[each.key].logprob == pytest.approx(hand_logprob(folder, each.messages, drawn), abs=1e-3)


async def test_asking_for_coherence_changes_no_text(models: Path, tmp_path: Path) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    steering = (Steering(vector(models / "llama", tmp_path), 2.0),)
    plain = [request(subject, str(seed), seed=seed, steering=steering) for seed in range(6)]
    some = [dataclasses.replace(each, coherence=int(each.key) % 2 == 0) for each in plain]
    without, with_it = await answers(backend, plain), await answers(backend, some)
    await backend.aclose()
    assert {key: each.text for key, each in with_it.items()} == {key: each.text for key, each in without.items()}
    assert all(each.logprob is None for each in without.values())
    assert all((with_it[each.key].logprob is not None) == each.coherence for each in some if with_it[each.key].tokens)


# -- vectors ----------------------------------------------------------------------------------------

SIDES: dict[str, list[Answered]] = {
    "long": [
        ((Message("user", f"Tell me {n}"),), "Bees gather in a ball, and keep warm. " * (n + 1)) for n in range(3)
    ],
    "short": [((Message("user", f"Tell me {n}"),), "Bees.") for n in range(4)],
}


async def made(folder: Path, output: Path, source: VectorSource, layer: int | None = None) -> SteeringVector:
    backend = LocalBackend(OPTIONS)
    (event,) = await gather(backend.make_vectors([VectorJob("k", "mine", Model(str(folder)), source, output, layer)]))
    await backend.aclose()
    assert event == VectorMade("k")
    return SteeringVector.load(output)


@pytest.mark.parametrize("tokens", ["response", "prompt", "last_prompt"])
async def test_a_difference_of_means_equals_one_computed_by_hand(models: Path, tmp_path: Path, tokens: Any) -> None:
    sides = {name: [(messages if name == "long" else (Message("user", "Be short. Why?"),), text)
                    for messages, text in rows] for name, rows in SIDES.items()}  # fmt: skip
    source = Difference(sides["long"], sides["short"], tokens, ("long", "short"), "all of them")
    found = await made(models / "llama", tmp_path / "v.safetensors", source)
    lm = opened(models / "llama")
    model = AutoModelForCausalLM.from_pretrained(models / "llama").double().eval()
    means = {}
    for name, rows in sides.items():
        each = []
        for messages, text in rows:
            row = lm.chat.training_tokens(messages, text)
            with torch.no_grad():
                ids = torch.tensor([[*row.prompt, *row.completion]])
                hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[1][0]  # behind layer 0
            start = len(row.prompt)
            parts = {"response": hidden[start:], "prompt": hidden[:start], "last_prompt": hidden[start - 1 : start]}
            each.append(parts[tokens].mean(0))
        means[name] = torch.stack(each).mean(0)
    assert np.allclose(found.directions[0], (means["long"] - means["short"]).numpy(), atol=1e-5)
    origin = found.provenance
    assert (found.name, found.layer, origin.fingerprint) == ("mine", None, lm.fingerprint)
    assert (origin.positive, origin.negative, origin.positive_count, origin.negative_count) == ("long", "short", 3, 4)
    assert (origin.tokens, origin.how) == (tokens, "mean difference, all of them")
    assert found.rms is not None


async def test_controls_combinations_and_files(models: Path, tmp_path: Path) -> None:
    folder = models / "llama"
    parent = SteeringVector.load(path := vector(folder, tmp_path))
    other = vector(folder, tmp_path, 1)
    found = {
        name: await made(folder, tmp_path / f"{name}.safetensors", source)
        for name, source in {
            "random": Control(path, "random", seed=3),
            "again": Control(path, "random", seed=3),
            "reseeded": Control(path, "random", seed=4),
            "orthogonal": Control(path, "orthogonal", seed=3),
            "flipped": Control(path, "flipped"),
            "layer": Control(path, "layer", source=1),
            "both": Combination(((path, 1.0), (other, -0.5))),
            "stored": Stored(path),
        }.items()
    }
    rows = {name: each.directions.astype(np.float64) for name, each in found.items()}
    for name in ("random", "orthogonal", "flipped", "layer"):
        assert np.allclose(found[name].norms, parent.norms, rtol=1e-5)
        assert found[name].rms == parent.rms
        assert found[name].provenance.parents == (f"v0@{parent.digest}",)
    assert np.array_equal(rows["random"], rows["again"])
    assert not np.allclose(rows["random"], rows["reseeded"])
    assert np.allclose((rows["orthogonal"] * parent.directions).sum(1), 0, atol=1e-4)
    assert np.allclose(rows["flipped"], -parent.directions)
    assert np.allclose(rows["layer"][0] / parent.norms[0], parent.directions[1] / parent.norms[1], atol=1e-6)
    assert np.allclose(rows["both"], parent.directions - 0.5 * SteeringVector.load(other).directions, atol=1e-6)
    assert np.array_equal(rows["stored"], parent.directions)
    assert all(each.layer is None and each.name == "mine" for each in found.values())


async def test_vectors_that_cannot_be_made_fail_alone(models: Path, tmp_path: Path) -> None:
    folder = models / "llama"
    path = vector(folder, tmp_path)
    rows = SIDES["long"]
    long = [((Message("user", "word " * 400),), "yes")]
    wrong: dict[str, tuple[VectorSource, str]] = {
        "same": (Difference(rows, rows, "response", ("a", "b")), "zero at every layer"),
        "empty": (Difference([], rows, "response", ("a", "b")), "there are no rows for 'a'"),
        "no answer": (Difference(long, rows, "response", ("a", "b")), "more than the 256 of the model's context"),
        "cancels": (Combination(((path, 1.0), (path, -1.0))), "zero at every layer"),
        "foreign": (Stored(vector(models / "unlike", tmp_path / "other")), "with other weights"),
        "wide": (Stored(vector(models / "wide", tmp_path / "wide")), "width 48"),
        "gone": (Stored(str(tmp_path / "none")), "cannot read vector"),
        "layer 5": (Control(path, "layer", source=5), "has no layer 5"),
    }
    jobs = [
        VectorJob(name, "mine", Model(str(folder)), source, tmp_path / "out" / f"{name}.safetensors")
        for name, (source, _) in wrong.items()
    ]
    jobs.append(dataclasses.replace(jobs[0], key="fine", source=Stored(path), output=tmp_path / "out" / "fine"))
    jobs.append(dataclasses.replace(jobs[0], key="unknown", model=Model("./no/such/model")))
    backend = LocalBackend(OPTIONS)
    events = {event.key: event for event in await gather(backend.make_vectors(jobs))}
    await backend.aclose()
    for name, (_, says) in wrong.items():
        event = events[name]
        assert isinstance(event, VectorFailed), name
        assert says in event.error, name
    unknown = events["unknown"]
    assert isinstance(unknown, VectorFailed)
    assert "./no/such/model" in unknown.error
    assert events["fine"] == VectorMade("fine")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fine"]


# -- architectures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
async def test_every_architecture_extracts_trains_and_evaluates(models: Path, tmp_path: Path, kind: str) -> None:
    folder, path = models / kind, tmp_path / "v.safetensors"
    source = Difference(SIDES["long"], SIDES["short"], "response", ("long", "short"))
    found = await made(folder, path, source, layer=1)
    assert found.layer == 1
    end = await trained(folder, tmp_path / "job", Steering(str(path), found.alpha_of(-0.3)))
    (proof,) = end.proofs
    assert proof.calls == proof.calls_asked == 2
    assert proof.tokens == proof.tokens_asked > 0
    subject = subject_of(folder)
    backend = subject.make()
    tuned = dataclasses.replace(subject.model, adapter=end.adapter)
    steering = (Steering(str(path), found.alpha_of(0.5)),)
    asked_for = request(subject, "r", model=tuned, steering=steering, sampling=GREEDY, coherence=True)
    answer = (await answers(backend, [asked_for]))["r"]
    await backend.aclose()
    assert answer.proofs
    expected = hand_written(folder, asked_for.messages, (dataclasses.replace(steering[0], layer=1),), end.adapter)
    assert answer.text == expected


class TwinConfig(LlamaConfig):  # type: ignore[misc]  # transformers is untyped here
    model_type = "twin"


class TwinForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """Two lists with as many entries as there are layers: nobody knows which of them is the layers."""

    config_class = TwinConfig

    def __init__(self, config: TwinConfig) -> None:
        super().__init__(config)
        self.others = nn.ModuleList(nn.LayerNorm(4) for _ in range(config.num_hidden_layers))


async def test_an_unsupported_architecture_is_named(models: Path, tmp_path: Path) -> None:
    AutoConfig.register("twin", TwinConfig, exist_ok=True)
    AutoModelForCausalLM.register(TwinConfig, TwinForCausalLM, exist_ok=True)
    words = tokenizer()
    settings = config("llama", len(words)).to_dict() | {"eos_token_id": words.eos_token_id}
    folder = tmp_path / "twin"
    TwinForCausalLM(TwinConfig(**{k: v for k, v in settings.items() if k != "model_type"})).save_pretrained(folder)
    words.save_pretrained(folder)
    says = "the architecture 'TwinForCausalLM' cannot be steered"
    backend = LocalBackend(OPTIONS)
    source = Difference(SIDES["long"], SIDES["short"], "response", ("long", "short"))
    vectors = [VectorJob("k", "v", Model(str(folder)), source, tmp_path / "v")]
    (event,) = await gather(backend.make_vectors(vectors))
    assert isinstance(event, VectorFailed)
    assert says in event.error
    subject = subject_of(folder)
    steering = (Steering(vector(models / "llama", tmp_path), 1.0),)
    found = await answers(backend, [request(subject, "steered", steering=steering), request(subject, "plain")])
    assert says in (found["steered"].error or "")
    assert found["plain"].finish != "failed"  # it can be sampled from all the same
    plain = job(subject, tmp_path / "plain", key="plain")
    pushed = [dataclasses.replace(example, steering=steering) for example in plain.examples]
    steered = dataclasses.replace(plain, key="steered", examples=pushed, output=tmp_path / "steered")
    events = await gather(backend.train([steered, plain]))
    await backend.aclose()
    end = ending(events, "steered")
    assert isinstance(end, TrainFailed)
    assert says in end.error
    assert isinstance(ending(events, "plain"), Trained)
