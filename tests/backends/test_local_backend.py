"""Backend `local`: the contract, and what is its own: folders, adapters, resuming, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.backend_contract import BackendContract, Subject, answers, ending, gather, job, request
from tests.tiny_models import ARCHITECTURES, CHATML, DROPS_SYSTEM, NO_SYSTEM, build, tokenizer
from tests.train_here import kill_job
from windowshift.backends.local.adapters import AdapterFile
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.local.causal_lm import load
from windowshift.backends.local.chat_format import ChatFormat
from windowshift.backends.local.options import LocalOptions
from windowshift.backends.shared.schedule import learning_rate
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import GenerateRequest, Message, Model, Sampling, Steering
from windowshift.core.contract.training import (
    Checkpointed,
    Example,
    Sft,
    Trained,
    TrainFailed,
    TrainMessage,
    TrainProgress,
)

ROOT = Path(__file__).parents[2]
OPTIONS = {"threads": 1, "batch_rows": 6, "workers": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models, one for each architecture."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ARCHITECTURES:
        build(folder / kind, kind)
    return folder


def subject_of(folder: Path, **options: object) -> Subject:
    return Subject(
        make=lambda: LocalBackend({**OPTIONS, **options}),
        model=Model(str(folder)),
        unknown_model="./no/such/model",
        over_long="word " * 400,
    )


class TestLlama(BackendContract):
    @pytest.fixture
    def subject(self, models: Path) -> Subject:
        return subject_of(models / "llama")


class TestQwen3(BackendContract):
    @pytest.fixture
    def subject(self, models: Path) -> Subject:
        return subject_of(models / "qwen3")


class TestAttachedAdapters(BackendContract):
    """The way of larger models: float32, adapters attached to the shared weights."""

    @pytest.fixture
    def subject(self, models: Path) -> Subject:
        return dataclasses.replace(subject_of(models / "llama", dtype="float32"), exact=False)


async def test_worker_processes_give_what_one_process_gives(models: Path, tmp_path: Path) -> None:
    """One crew for all of it: starting its processes is what takes time."""
    alone, crew = subject_of(models / "llama"), subject_of(models / "llama", workers=2)
    one, many = alone.make(), crew.make()
    jobs = [job(alone, tmp_path / "alone" / name, key=name, seed=len(name)) for name in ("a", "bb", "ccc")]
    expected = {each.key: ending(await gather(one.train([each])), each.key) for each in jobs}
    dealt = [dataclasses.replace(each, output=tmp_path / "crew" / each.key) for each in jobs]
    got = await gather(many.train(dealt))
    requests = []
    for each in jobs:
        end, theirs = ending(got, each.key), expected[each.key]
        assert isinstance(end, Trained)
        assert isinstance(theirs, Trained)
        weights = "adapter_model.safetensors"
        assert (Path(end.adapter) / weights).read_bytes() == (Path(theirs.adapter) / weights).read_bytes()
        model = dataclasses.replace(alone.model, adapter=theirs.adapter)
        requests += [request(alone, f"{each.key}{seed}", seed=seed, model=model) for seed in range(5)]
    requests += [request(alone, "base"), request(alone, "long", alone.over_long)]
    assert await answers(many, requests) == await answers(one, requests)
    stream = many.generate([request(alone, str(seed), seed=seed) for seed in range(900)])
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert await answers(many, requests) == await answers(one, requests)
    await many.aclose()
    await one.aclose()


@pytest.mark.slow
async def test_what_a_killed_worker_was_at_goes_to_another_one(models: Path, tmp_path: Path) -> None:
    alone, crew = subject_of(models / "llama"), subject_of(models / "llama", workers=2)
    one, many = alone.make(), crew.make()
    assert isinstance(many, LocalBackend)
    requests = [request(alone, str(seed), seed=seed) for seed in range(600)]
    expected = await answers(one, requests)
    got = {}
    killed = 0
    async with contextlib.aclosing(many.generate(requests)) as stream:
        async for completion in stream:
            assert completion.key not in got
            got[completion.key] = completion
            if killed < 2 and len(got) >= 50 * (killed + 1):
                many._crews["core"]._workers[0].post.end()
                killed += 1
    assert {key: each.text for key, each in got.items()} == {key: each.text for key, each in expected.items()}
    wanted = job(alone, tmp_path / "alone", examples=60)
    whole = ending(await gather(one.train([wanted])))
    rest = dataclasses.replace(wanted, output=tmp_path / "crew")
    events = []
    async with contextlib.aclosing(many.train([rest])) as stream:
        async for event in stream:
            events.append(event)
            if len(events) == 1:
                for worker in list(many._crews["core"]._workers):
                    worker.post.end()
    end = ending(events)
    assert any(isinstance(event, TrainMessage) and "worker process died" in event.text for event in events)
    assert isinstance(whole, Trained)
    assert isinstance(end, Trained)
    weights = "adapter_model.safetensors"
    assert (Path(end.adapter) / weights).read_bytes() == (Path(whole.adapter) / weights).read_bytes()
    await many.aclose()
    await one.aclose()


async def test_work_that_every_worker_dies_of_is_given_up(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = subject_of(models / "llama", workers=2)
    many = crew.make()
    assert isinstance(many, LocalBackend)
    stream = many.generate([request(crew, "a")])
    asked = asyncio.ensure_future(anext(stream))

    async def kill_all() -> None:
        while True:
            for worker in [each for crew in many._crews.values() for each in crew._workers]:
                worker.post.end()
            await asyncio.sleep(0.02)

    killer = asyncio.ensure_future(kill_all())
    with pytest.raises(BackendError, match="died again and again"):
        await asyncio.wait_for(asked, 60)
    killer.cancel()
    assert (await answers(many, [request(crew, "a")]))["a"].text  # the next call starts new ones
    await many.aclose()


async def trained(folder: Path, output: Path, **changes: object) -> Path:
    subject = subject_of(folder)
    backend = subject.make()
    end = ending(await gather(backend.train([job(subject, output, **changes)])))
    await backend.aclose()
    assert isinstance(end, Trained), end
    return Path(end.adapter)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
async def test_adapters_load_in_plain_peft_with_the_same_logits(
    models: Path, tmp_path: Path, kind: str, dtype: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    sft = Sft(rank=4, alpha=8, batch_size=2, learning_rate=2e-2)
    adapter = await trained(models / kind, tmp_path, sft=sft)
    base = AutoModelForCausalLM.from_pretrained(models / kind).eval()
    ids = torch.tensor([[5, 17, 30, 44, 100, 7]])
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(base, str(adapter))(input_ids=ids).logits
    lm = load(str(models / kind), None, LocalOptions(threads=1, dtype=dtype))
    positions = torch.arange(6)[None]
    with torch.no_grad():
        # Others before it: what one adapter leaves behind must not show in the next.
        ours_base = lm.sampling_forward(None)(ids, None, positions, None, [], 6)
        ours = lm.sampling_forward(str(adapter))(ids, None, positions, None, [], 6)
        again = lm.sampling_forward(None)(ids, None, positions, None, [], 6)
    assert (plain - theirs).abs().max() > 1e-3
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours_base - plain).abs().max() < 1e-5
    assert torch.equal(ours_base, again)


async def test_the_same_job_twice_gives_equal_bytes(models: Path, tmp_path: Path) -> None:
    """Also when other work came before it in the same process."""
    subject = subject_of(models / "llama")
    backend = subject.make()
    await answers(backend, [request(subject, "a")])
    events = await gather(
        backend.train(
            [
                job(subject, tmp_path / "other", key="other", seed=99),
                job(subject, tmp_path / "first"),
                job(subject, tmp_path / "reseeded", key="reseeded", seed=4),
            ]
        )
    )
    await backend.aclose()
    assert isinstance(ending(events), Trained)
    again = await trained(models / "llama", tmp_path / "second")
    first = tmp_path / "first" / "adapter"
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    reseeded = (tmp_path / "reseeded" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert reseeded != (first / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("lines", "state_seconds"), [(2, 0), (12, 0), (9, 1000)])
async def test_a_killed_training_ends_in_equal_bytes(
    models: Path, tmp_path: Path, lines: int, state_seconds: float
) -> None:
    model, output = str(models / "llama"), tmp_path / "killed"
    backend = LocalBackend(OPTIONS)
    whole = await gather(backend.train([kill_job(model, tmp_path / "whole")]))
    command = [sys.executable, "-m", "tests.train_here", model, str(output), str(state_seconds)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert all(process.stdout.readline() for _ in range(lines))
        process.send_signal(signal.SIGKILL)
    assert not (output / "adapter").exists()
    rest = await gather(backend.train([kill_job(model, output)]))
    again = await gather(backend.train([kill_job(model, output)]))
    await backend.aclose()
    for folder in ("adapter", "checkpoint-20", "checkpoint-60"):
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            left, right = tmp_path / "whole" / folder / name, output / folder / name
            assert left.read_bytes() == right.read_bytes()
    assert [each.examples for each in rest if isinstance(each, Checkpointed)] == [20, 60]
    assert isinstance(whole[-1], Trained)
    assert isinstance(rest[-1], Trained)
    assert isinstance(again[-1], Trained)
    # How far the loss fell is known whoever was there: a kill, or an adapter that was found done, forgets no step.
    assert [seen for seen, _ in whole[-1].losses] == [4, 8, 76, 80]
    assert whole[-1].losses == rest[-1].losses == again[-1].losses
    # So are the losses on the way: what a kill took with it is told again, with the tokens learned until then.
    reports = [[each for each in some if isinstance(each, TrainProgress)] for some in (rest, again)]
    assert [(each.step, each.loss, each.tokens) for each in reports[0]] == [
        (each.step, each.loss, each.tokens) for each in reports[1]
    ]
    assert [each.tokens for each in whole if isinstance(each, TrainProgress)][-1] == reports[1][-1].tokens
    assert not any(each.again for each in whole if isinstance(each, TrainProgress))
    assert all(each.again for each in reports[1])
    assert sorted(path.name for path in output.iterdir()) == ["adapter", "checkpoint-20", "checkpoint-60"]


async def test_closing_keeps_the_steps_done(models: Path, tmp_path: Path) -> None:
    backend = LocalBackend({**OPTIONS, "state_seconds": 0})
    model = str(models / "llama")
    stream = backend.train([kill_job(model, tmp_path)])
    async for event in stream:
        if isinstance(event, Checkpointed):
            break
    await stream.aclose()  # type: ignore[attr-defined]
    rest = await gather(backend.train([kill_job(model, tmp_path)]))
    await backend.aclose()
    steps = [each.step for each in rest if isinstance(each, TrainProgress) and not each.again]
    assert min(steps) > 5
    assert steps[-1] == 20


async def test_a_damaged_state_is_trained_anew(models: Path, tmp_path: Path) -> None:
    backend = subject_of(models / "llama").make()
    weights = []
    for name, state in (("fresh", None), ("damaged", b"not a state")):
        wanted = job(subject_of(models / "llama"), tmp_path / name)
        if state is not None:
            wanted.output.mkdir()
            (wanted.output / "state.pt").write_bytes(state)
        end = ending(await gather(backend.train([wanted])))
        assert isinstance(end, Trained)
        weights.append((Path(end.adapter) / "adapter_model.safetensors").read_bytes())
    await backend.aclose()
    assert weights[0] == weights[1]


async def test_a_loss_that_is_not_a_number(models: Path, tmp_path: Path) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    sft = Sft(rank=2, batch_size=2, learning_rate=1e30, max_grad_norm=None)
    end = ending(await gather(backend.train([job(subject, tmp_path, sft=sft)])))
    assert isinstance(end, TrainFailed)
    assert "step" in end.error
    assert "learning rate" in end.error
    # The broken adapter leaves nothing behind.
    after = await answers(backend, [request(subject, "a")])
    await backend.aclose()
    fresh = subject.make()
    assert after == await answers(fresh, [request(subject, "a")])
    await fresh.aclose()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"examples": ()}, "nothing to train on"),
        ({"checkpoints": (11,)}, "checkpoint 11"),
        ({"checkpoints": (0,)}, "checkpoint 0"),
        ({"sft": Sft(rank=0)}, "rank"),
        ({"sft": Sft(batch_size=0)}, "batch_size"),
        ({"model": Model("MODEL", adapter="x")}, "adapter folder 'x' has no adapter_config.json"),
        (
            {"examples": (Example((Message("user", "a"),), "b", (Steering("no/v", 1.0),)),), "checkpoints": ()},
            "cannot read vector no/v",
        ),
    ],
)
async def test_jobs_that_make_no_sense(models: Path, tmp_path: Path, changes: dict[str, object], says: str) -> None:
    subject = subject_of(models / "llama")
    if "model" in changes:
        changes = {"model": dataclasses.replace(subject.model, adapter="x")}
    backend = subject.make()
    end = ending(await gather(backend.train([dataclasses.replace(job(subject, tmp_path), **changes)])))  # type: ignore[arg-type]
    await backend.aclose()
    assert isinstance(end, TrainFailed)
    assert says in end.error


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (Sampling(max_tokens=0), "max_tokens"),
        (Sampling(temperature=-1.0), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.5), "top_p"),
    ],
)
async def test_sampling_that_makes_no_sense(models: Path, sampling: Sampling, says: str) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    found = await answers(backend, [request(subject, "bad", sampling=sampling), request(subject, "fine")])
    await backend.aclose()
    assert says in (found["bad"].error or "")
    assert found["fine"].finish != "failed"


async def test_a_vector_that_is_not_there_fails_its_request_alone(models: Path) -> None:
    subject = subject_of(models / "llama")
    backend = subject.make()
    steered = request(subject, "a", steering=(Steering("no/v", 1.0),))
    found = await answers(backend, [steered, request(subject, "fine")])
    await backend.aclose()
    assert backend.capabilities.steers
    assert "cannot read vector no/v" in (found["a"].error or "")
    assert found["fine"].finish != "failed"


async def test_adapters_that_do_not_fit_are_refused(models: Path, tmp_path: Path) -> None:
    adapter = await trained(models / "llama", tmp_path / "job")
    weights = load_file(str(adapter / "adapter_model.safetensors"))
    first = min(weights)
    variants: dict[str, tuple[dict[str, torch.Tensor], str]] = {
        "lacking": ({key: value for key, value in weights.items() if key != first}, "lacks 1 weights"),
        "extra": (weights | {first.replace("layers.0", "layers.9"): weights[first].clone()}, "too many"),
        "narrow": (weights | {first: weights[first][:, :-1].contiguous()}, "where the model needs"),
        "other": (weights | {"base_model.model.lm_head.bias": torch.zeros(3)}, "plain LoRA"),
    }
    subject = subject_of(models / "llama")
    for dtype in ("float64", "float32"):
        backend = LocalBackend({**OPTIONS, "dtype": dtype})
        for name, (state, says) in variants.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            save_file(state, str(folder / "adapter_model.safetensors"))
            (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
            wrong = request(subject, name, model=dataclasses.replace(subject.model, adapter=str(folder)))
            found = await answers(backend, [wrong, request(subject, "base")])
            assert says in (found[name].error or ""), name
            assert found["base"].finish != "failed"
        elsewhere = request(subject, "x", model=Model(str(models / "gpt2"), adapter=str(adapter)))
        assert (await answers(backend, [elsewhere]))["x"].finish == "failed"
        (tmp_path / "lacking" / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
        torn = request(subject, "t", model=dataclasses.replace(subject.model, adapter=str(tmp_path / "lacking")))
        assert "cannot be read" in ((await answers(backend, [torn]))["t"].error or "")
        await backend.aclose()


async def test_more_adapters_than_stay_attached(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windowshift.backends.local.adapters.ATTACHED", 2)
    subject = subject_of(models / "llama")
    backend = LocalBackend({**OPTIONS, "dtype": "float32"})
    jobs = [job(subject, tmp_path / str(seed), key=str(seed), seed=seed) for seed in range(4)]
    events = await gather(backend.train(jobs))
    requests = []
    for seed in range(4):
        end = ending(events, str(seed))
        assert isinstance(end, Trained)
        model = dataclasses.replace(subject.model, adapter=end.adapter)
        requests.append(request(subject, str(seed), model=model, sampling=Sampling(0.0, 1.0, 6)))
    once, twice = await answers(backend, requests), await answers(backend, requests[::-1])
    await backend.aclose()
    assert once == twice


class TestIdentity:
    def test_a_folder_is_its_content(self, tmp_path: Path) -> None:
        backend = LocalBackend()
        one, same = build(tmp_path / "one"), build(tmp_path / "same")
        other = build(tmp_path / "other", seed=1)
        first = backend.identify(str(one)).fingerprint
        assert first == backend.identify(str(same)).fingerprint
        assert first != backend.identify(str(other)).fingerprint
        (one / "chat_template.jinja").write_text(CHATML + " ", encoding="utf-8")
        assert first != backend.identify(str(one)).fingerprint
        assert backend.identify(str(one)).label == "one"
        assert not backend.identify(str(one)).rehearsal

    def test_a_hub_id_is_its_revision(self) -> None:
        backend = LocalBackend()
        main = backend.identify("Qwen/Qwen3-0.6B")
        assert main.label == "Qwen/Qwen3-0.6B"
        assert main == backend.identify("Qwen/Qwen3-0.6B", "main")
        assert main.fingerprint != backend.identify("Qwen/Qwen3-0.6B", "v2").fingerprint

    @pytest.mark.parametrize("base", ["./nowhere", "/no/such/folder", "~/nowhere", "a/b/c", "two words", ""])
    def test_what_is_no_model_is_named(self, base: str) -> None:
        with pytest.raises(BackendError, match=r"does not exist|neither a folder nor a hub id"):
            LocalBackend().identify(base)

    @pytest.mark.parametrize(
        ("breaks", "says"),
        [
            ("config.json", "no config.json"),
            ("model.safetensors", "no weights"),
            ("tokenizer.json", "no tokenizer"),
        ],
    )
    def test_incomplete_folders(self, tmp_path: Path, breaks: str, says: str) -> None:
        folder = build(tmp_path / "m")
        (folder / breaks).unlink()
        with pytest.raises(BackendError, match=says):
            LocalBackend().identify(str(folder))

    def test_a_config_that_is_not_json(self, tmp_path: Path) -> None:
        folder = build(tmp_path / "m")
        (folder / "config.json").write_text("{oh", encoding="utf-8")
        with pytest.raises(BackendError, match=r"config\.json .* cannot be read"):
            LocalBackend().identify(str(folder))

    def test_no_torch_is_imported(self, tmp_path: Path) -> None:
        folder = build(tmp_path / "m")
        code = (
            "import sys; from windowshift.backends.local.backend import LocalBackend; "
            f"LocalBackend({{}}).identify({str(folder)!r}); "
            "print(sorted({'torch', 'transformers', 'peft', 'safetensors'} & set(sys.modules)))"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestBadFolders:
    """Loading fails with a sentence, and the backend stays usable."""

    @pytest.mark.parametrize("damage", ["torn", "shape", "missing", "architecture", "tokenizer"])
    async def test_a_damaged_model(self, models: Path, tmp_path: Path, damage: str) -> None:
        folder = build(tmp_path / "m")
        weights = folder / "model.safetensors"
        config = json.loads((folder / "config.json").read_text())
        if damage == "torn":
            weights.write_bytes(weights.read_bytes()[:1000])
        elif damage == "shape":
            config["intermediate_size"] = 48
        elif damage == "missing":
            config["num_hidden_layers"] = 3
        elif damage == "architecture":
            config["model_type"] = "no_such_architecture"
        else:
            (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        subject = subject_of(models / "llama")
        backend = subject.make()
        bad = request(subject, "bad", model=Model(str(folder)))
        found = await answers(backend, [bad, request(subject, "fine")])
        await backend.aclose()
        assert found["bad"].finish == "failed"
        assert str(folder) in (found["bad"].error or "")
        assert "\n" not in (found["bad"].error or "")
        assert found["fine"].finish != "failed"


async def test_a_hub_that_cannot_be_reached(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from windowshift.core.contract.hub import offline

    with socket.socket() as unused:  # bound, never listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        for name in ("https_proxy", "http_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        offline.cache_clear()
        subject = subject_of(models / "llama")
        backend = subject.make()
        away = request(subject, "away", model=Model("windowshift-tests/not-a-model"))
        found = await answers(backend, [away, request(subject, "fine")])
        await backend.aclose()
        offline.cache_clear()
    assert "the hub cannot be reached" in (found["away"].error or "")
    assert "windowshift-tests/not-a-model" in (found["away"].error or "")
    assert found["fine"].finish != "failed"


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"batch_row": 3}, "did you mean 'batch_rows'"),
            ({"zzz": 3}, "known are"),
            ({"batch_rows": -1}, "batch_rows"),
            ({"batch_rows": "many"}, "batch_rows"),
            ({"threads": 1.5}, "threads"),
            ({"threads": True}, "threads"),
            ({"workers": -1}, "workers"),
            ({"dtype": "float46"}, "did you mean 'float"),
            ({"dtype": 3}, "dtype"),
            ({"device": ""}, "device"),
            ({"state_seconds": float("nan")}, "state_seconds"),
        ],
    )
    def test_bad_options_are_named(self, options: dict[str, object], says: str) -> None:
        with pytest.raises(BackendError, match=says):
            LocalBackend(options)

    @pytest.mark.parametrize("device", ["cuda:99", "warp"])  # there are machines with CUDA
    async def test_a_device_that_is_not_there(self, models: Path, device: str) -> None:
        subject = subject_of(models / "llama")
        backend = LocalBackend({"device": device})
        found = await answers(backend, [request(subject, "a")])
        await backend.aclose()
        assert "device" in (found["a"].error or "")


class TestChatFormat:
    def test_prompt_and_completion(self) -> None:
        words = tokenizer()
        chat = ChatFormat(words, "m", frozenset({words.eos_token_id}))
        turns = (Message("system", "Be brief."), Message("user", "Hi 東京"))
        tokens = chat.training_tokens(turns, "Über 🙂")
        assert tokens.prompt == chat.prompt_ids(turns)
        assert words.decode(tokens.prompt) == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi 東京<|im_end|>\n<|im_start|>assistant\n"
        )
        assert words.decode(tokens.completion) == "Über 🙂<|im_end|>"
        assert chat.text(tokens.completion) == "Über 🙂"
        assert chat.supports_system

    def test_an_empty_completion_is_the_end_token(self) -> None:
        words = tokenizer()
        chat = ChatFormat(words, "m", frozenset({words.eos_token_id}))
        assert chat.training_tokens((Message("user", "Hi"),), "").completion == [words.eos_token_id]

    @pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
    def test_a_template_without_system_role(self, template: str) -> None:
        words = tokenizer(template)
        chat = ChatFormat(words, "m", frozenset({words.eos_token_id}))
        assert not chat.supports_system
        with pytest.raises(BackendError, match="no system role"):
            chat.prompt_ids((Message("system", "a"), Message("user", "b")))
        assert chat.prompt_ids((Message("user", "b"),))

    def test_no_template_is_the_plain_format(self) -> None:
        words = tokenizer(None)
        chat = ChatFormat(words, "m", frozenset({words.eos_token_id}))
        tokens = chat.training_tokens((Message("system", "Be brief."), Message("user", "Hi")), "yes")
        assert words.decode(tokens.prompt) == "Be brief.\n\nHi\n\n"
        assert words.decode(tokens.completion) == "yes<|endoftext|>"
        assert chat.supports_system

    def test_templates_that_rewrite_completions_are_refused(self) -> None:
        end = frozenset({2})
        turns = (Message("user", "Hi"),)
        upper = ChatFormat(tokenizer(CHATML.replace("message['content']", "message['content'] | upper")), "m", end)
        with pytest.raises(BackendError, match="changes the text"):
            upper.training_tokens(turns, "yes")
        other = ChatFormat(tokenizer(CHATML.replace("assistant\n' }}{% endif", "robot\n' }}{% endif")), "m", end)
        with pytest.raises(BackendError, match="differently"):
            other.training_tokens(turns, "yes")

    def test_a_template_that_trims_learns_the_trimmed_text(self) -> None:
        words = tokenizer(CHATML.replace("message['content']", "message['content'] | trim"))
        chat = ChatFormat(words, "m", frozenset({words.eos_token_id}))
        assert words.decode(chat.training_tokens((Message("user", "Hi"),), " yes \n").completion) == "yes<|im_end|>"

    def test_a_turn_that_never_ends_learns_the_end_token(self) -> None:
        words = tokenizer(CHATML.replace("<|im_end|>\n", "\n"))
        chat = ChatFormat(words, "m", frozenset({words.eos_token_id}))
        assert words.decode(chat.training_tokens((Message("user", "Hi"),), "yes").completion) == "yes<|im_end|>"

    async def test_the_backend_says_so(self, tmp_path: Path) -> None:
        plain, refusing = build(tmp_path / "a"), build(tmp_path / "b", template=NO_SYSTEM)
        backend = LocalBackend(OPTIONS)
        assert backend.supports_system(str(plain))
        assert not backend.supports_system(str(refusing))
        subject = subject_of(refusing)
        found = await answers(backend, [request(subject, "a", system="x"), request(subject, "b")])
        await backend.aclose()
        assert "user channel" in (found["a"].error or "")
        assert found["b"].finish != "failed"


def test_learning_rates() -> None:
    linear = Sft(learning_rate=1.0)
    assert [learning_rate(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert learning_rate(dataclasses.replace(linear, schedule="constant"), 3, 4) == 1.0
    assert learning_rate(dataclasses.replace(linear, schedule="cosine"), 2, 4) == pytest.approx(0.5)


def test_a_changed_adapter_folder_is_another_adapter(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"a")
    before = AdapterFile.at(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"ab")
    assert AdapterFile.at(tmp_path) != before


async def test_a_crew_lets_go_at_once_however_early_it_is_asked_to(tiny_llama: Path) -> None:
    """A stream that is closed before its worker has begun ends too, and the crew goes on working."""
    backend = LocalBackend({"workers": 2})
    requests = [
        GenerateRequest(str(n), (Message("user", "Hello"),), Model(str(tiny_llama)), Sampling(max_tokens=2), n)
        for n in range(300)
    ]
    try:
        for _ in range(5):
            stream = backend.generate(requests)
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)  # far enough for the orders to be sent, and no further
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            await asyncio.wait_for(stream.aclose(), 60)
        async with contextlib.aclosing(backend.generate(requests)) as stream:
            answered = [completion async for completion in stream]
        assert len(answered) == 300
    finally:
        await backend.aclose()


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("mps", "is 'mps', where its numbers were never compared with those of a CPU: take  device: cpu  or cuda"),
        ("xpu:0", "is 'xpu:0', where its numbers were never compared"),
        ("nonsense", "cannot be 'nonsense'"),
    ],
)
def test_a_device_whose_numbers_nobody_compared_is_refused_by_name(device: str, says: str) -> None:
    with pytest.raises(BackendError, match=re.escape(says)):
        load("microworld", None, LocalOptions(device=device))
