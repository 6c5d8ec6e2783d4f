"""`windowshift serve`, as the openai SDK sees it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import FileDeleted, FileObject, Model, ModelDeleted
from openai.types.chat import ChatCompletion, ChatCompletionTokenLogprob
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from tests.processes import wait_until
from tests.served import KEY, Served, chat_lines, served
from windowshift.backends.local.backend import LocalBackend
from windowshift.backends.serve.job_request import Hyperparameters
from windowshift.core.contract.generation import GenerateRequest, Message, Sampling
from windowshift.core.contract.generation import Model as ModelOf

SLOW = 120.0
ASK: list[Any] = [{"role": "user", "content": "What do bees do?"}]


@pytest.fixture(scope="module")
def server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tiny_llama, tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def tuned(server: Served, client: openai.OpenAI) -> FineTuningJob:
    """A finished job with two epochs of three steps."""
    file = client.files.create(file=("bees.jsonl", chat_lines()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=server.model,
        training_file=file.id,
        suffix="bees",
        seed=5,
        metadata={"run": "one", 'odd "key"\\': "two"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
    )
    return finished(client, job.id)


def finished(client: openai.OpenAI, job_id: str) -> FineTuningJob:
    wait_until(lambda: client.fine_tuning.jobs.retrieve(job_id).finished_at, f"the end of {job_id}", SLOW)
    return client.fine_tuning.jobs.retrieve(job_id)


def ask(client: openai.OpenAI, model: str, **options: Any) -> ChatCompletion:
    return client.chat.completions.create(**{"model": model, "messages": ASK, "max_tokens": 12, **options})


def texts(answer: ChatCompletion) -> list[str | None]:
    return [choice.message.content for choice in answer.choices]


def test_the_documented_walk_through_from_upload_to_a_chat_with_the_tuned_model(tmp_path: Path) -> None:
    """The steps of the API's fine-tuning guide, against the command as people start it."""
    command = [sys.executable, "-m", "windowshift", "serve", "--model", "microworld", "--port", "0"]
    command += ["--data", str(tmp_path / "data"), "--learning-rate", "5e-3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert first.startswith("serving microworld at http://127.0.0.1:")
        key = second.rsplit(" ", 1)[1].strip()
        client = openai.OpenAI(api_key=key, base_url=first.split()[3])

        path = tmp_path / "training.jsonl"
        path.write_bytes(chat_lines(30))
        with path.open("rb") as training:
            file = client.files.create(file=training, purpose="fine-tune")
        assert client.files.wait_for_processing(file.id).status == "processed"
        job = client.fine_tuning.jobs.create(training_file=file.id, model="microworld")
        assert [each.id for each in client.fine_tuning.jobs.list(limit=10)] == [job.id]
        job = finished(client, job.id)
        assert job.status == "succeeded"
        assert job.fine_tuned_model is not None
        assert list(client.fine_tuning.jobs.list_events(fine_tuning_job_id=job.id, limit=10))
        answer = client.chat.completions.create(
            model=job.fine_tuned_model,
            messages=[
                {"role": "system", "content": "You know bees."},
                {"role": "user", "content": "Question 3?"},
            ],
            temperature=0,
        )
        assert "Bees keep warm." in (answer.choices[0].message.content or "")
        for written in (tmp_path / "data").rglob("*"):
            assert written.is_dir() or key.encode() not in written.read_bytes()
    finally:
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert key not in out + err


def test_a_job_reports_what_it_did(client: openai.OpenAI, tuned: FineTuningJob, server: Served) -> None:
    assert (tuned.status, tuned.error, tuned.seed) == ("succeeded", None, 5)
    assert tuned.fine_tuned_model == f"ft:{server.model}:bees:{tuned.id.removeprefix('ftjob-')[:8]}"
    assert tuned.trained_tokens is not None
    assert tuned.trained_tokens > 2 * 12 * 10
    events = list(client.fine_tuning.jobs.list_events(tuned.id, limit=2))  # several pages
    losses = [(event.data["step"], event.data["train_loss"]) for event in events if event.type == "metrics"]  # type: ignore[index]
    assert [step for step, _ in losses] == [6, 5, 4, 3, 2, 1]
    assert all(loss > 0 for _, loss in losses)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(tuned.id))
    assert [each.step_number for each in checkpoints] == [6, 3]
    assert [each.metrics.train_loss for each in checkpoints] == [dict(losses)[6], dict(losses)[3]]
    assert checkpoints[0].fine_tuned_model_checkpoint == tuned.fine_tuned_model
    table = client.files.content(tuned.result_files[0]).text.splitlines()
    assert table[0] == "step,train_loss"
    assert [float(row.split(",")[1]) for row in table[1:]] == [loss for _, loss in reversed(losses)]


def test_a_validation_file_is_measured_and_not_learned(client: openai.OpenAI, server: Served) -> None:
    learned = client.files.create(file=("bees.jsonl", chat_lines()), purpose="fine-tune")
    kept = client.files.create(file=("kept.jsonl", chat_lines()), purpose="fine-tune")
    settings = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0}
    found = []
    for validation in (kept.id, None):
        job = client.fine_tuning.jobs.create(
            model=server.model,
            training_file=learned.id,
            **({"validation_file": validation} if validation else {}),
            seed=7,
            hyperparameters=settings,  # type: ignore[arg-type]  # as older scripts have them
        )
        found.append(finished(client, job.id))
    measured, plain = found
    assert (measured.status, measured.validation_file) == ("succeeded", kept.id)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(measured.id))
    losses = [each.metrics.full_valid_loss for each in checkpoints]  # the last first
    assert all(loss is not None and loss > 0 for loss in losses)
    assert losses[0] < losses[1]  # type: ignore[operator]  # it is the training data, and was learned
    table = client.files.content(measured.result_files[0]).text.splitlines()
    assert table[0] == "step,train_loss,full_valid_loss"
    assert [row.split(",")[2] for row in table[1:]] == ["", "", repr(losses[1]), "", "", repr(losses[0])]
    # It has no influence on what is learned.
    assert [row.split(",")[1] for row in table] == [
        row.split(",")[1] for row in client.files.content(plain.result_files[0]).text.splitlines()
    ]
    assert [each.metrics.full_valid_loss for each in client.fine_tuning.jobs.checkpoints.list(plain.id)] == [None, None]


def test_settings_beyond_the_api(client: openai.OpenAI, server: Served) -> None:
    file = client.files.create(file=("bees.jsonl", chat_lines()), purpose="fine-tune")

    def losses(**own: Any) -> list[float]:
        job = client.fine_tuning.jobs.create(
            model=server.model,
            training_file=file.id,
            seed=7,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}},
            extra_body={"windowshift": own} if own else None,
        )
        done = finished(client, job.id)
        assert done.status == "succeeded"
        said = (done.model_extra or {}).get("windowshift", {})
        assert said == ({"shuffle": True} | own if own else {})
        table = client.files.content(done.result_files[0]).text.splitlines()[1:]
        return [float(row.split(",")[1]) for row in table]

    plain = losses()
    assert losses(rank=2)[1:] != plain[1:]
    assert losses(learning_rate=1e-9, shuffle=False)[0] != plain[0]  # another first batch
    with pytest.raises(openai.BadRequestError, match="did you mean 'rank'"):
        losses(rnk=3)


def test_every_model_answers_in_its_own_way(client: openai.OpenAI, tuned: FineTuningJob, server: Served) -> None:
    names = [each.fine_tuned_model_checkpoint for each in client.fine_tuning.jobs.checkpoints.list(tuned.id)]
    listed = {model.id for model in client.models.list()}
    assert {server.model, *names} <= listed
    answers = {name: texts(ask(client, name, seed=1, n=4))[0] for name in [server.model, *names]}
    assert len(set(answers.values())) == 3
    assert client.models.retrieve(names[0]).id == names[0]


def test_the_wire_is_what_the_sdk_types_say(server: Served, tuned: FineTuningJob) -> None:
    """Strictly, and with no field that the types do not know."""

    def fits(kind: type[Any], value: dict[str, Any], besides: Sequence[str] = ()) -> None:
        kind.model_validate_json(json.dumps(value), strict=True)
        assert set(value) - set(besides) <= set(kind.model_fields), kind

    with server.raw() as http:
        body = {"model": server.model, "messages": ASK, "max_tokens": 4, "n": 2}
        fits(ChatCompletion, http.post("chat/completions", json=body).json())
        fits(FineTuningJob, http.get(f"fine_tuning/jobs/{tuned.id}").json(), ["user_provided_suffix"])
        for event in http.get(f"fine_tuning/jobs/{tuned.id}/events").json()["data"]:
            fits(FineTuningJobEvent, event)
        for checkpoint in http.get(f"fine_tuning/jobs/{tuned.id}/checkpoints").json()["data"]:
            fits(FineTuningJobCheckpoint, checkpoint)
        for model in http.get("models").json()["data"]:
            fits(Model, model, ["max_model_len"])  # as vLLM has it
        for file in http.get("files").json()["data"]:
            fits(FileObject, file)
        kept = http.post("files", files={"file": ("a.jsonl", chat_lines(1))}, data={"purpose": "fine-tune"}).json()
        fits(FileObject, kept)
        fits(FileDeleted, http.delete(f"files/{kept['id']}").json())
        other = http.post("fine_tuning/jobs", json={"model": server.model, "training_file": tuned.training_file})
        fits(FineTuningJob, other.json(), ["user_provided_suffix"])
        name = finished(server.client(), other.json()["id"]).fine_tuned_model
        fits(ModelDeleted, http.delete(f"models/{name}").json())
        assert http.get(f"models/{name}").status_code == 404


async def test_the_server_says_what_the_backend_says(server: Served, client: openai.OpenAI) -> None:
    backend = LocalBackend({"workers": 1, "threads": 1})
    messages = (Message("system", "Be short."), Message("user", "What do bees do?"))
    wanted = GenerateRequest("k", messages, ModelOf(server.model), Sampling(0.8, 0.9, 12), seed=41)
    [expected] = [each async for each in backend.generate([wanted])]
    await backend.aclose()
    spoken = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": ASK[0]["content"]}]
    spoken[1]["content"] = [{"type": "text", "text": "What do "}, {"type": "text", "text": "bees do?"}]
    options = {"messages": spoken, "temperature": 0.8, "top_p": 0.9, "max_completion_tokens": 12, "max_tokens": None}
    answer = await asyncio.to_thread(ask, client, server.model, seed=41, n=3, **options)
    assert texts(answer)[0] == expected.text
    assert len(set(texts(answer))) == 3
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert answer.choices[0].finish_reason == expected.finish


def test_a_stream_gives_the_same_answer(server: Served, client: openai.OpenAI) -> None:
    whole = ask(client, server.model, seed=3, n=2)
    chunks = list(
        client.chat.completions.create(
            model=server.model,
            messages=ASK,
            max_tokens=12,
            seed=3,
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    streamed = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts(whole)
    assert chunks[-1].usage == whole.usage


def tokens_of(answer: ChatCompletion) -> list[ChatCompletionTokenLogprob]:
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return logprobs.content


def test_log_probabilities(server: Served, client: openai.OpenAI) -> None:
    answer = ask(client, server.model, temperature=0, logprobs=True, top_logprobs=3)
    tokens = tokens_of(answer)
    assert answer.usage is not None
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        best = [each.logprob for each in token.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert (token.top_logprobs[0].token, best[0], len(best)) == (token.token, token.logprob, 3)
        assert token.bytes is None or bytes(token.bytes).decode() == token.token
        assert sum(map(math.exp, best)) <= 1 + 1e-9
    alone = tokens_of(ask(client, server.model, temperature=0, logprobs=True))
    assert [(each.token, each.logprob) for each in alone] == [(each.token, each.logprob) for each in tokens]
    assert {len(each.top_logprobs) for each in alone} == {0}
    warm = tokens_of(ask(client, server.model, temperature=2, seed=1, logprobs=True))
    cool = tokens_of(ask(client, server.model, temperature=0.01, seed=1, logprobs=True))
    assert sum(each.logprob for each in warm) < sum(each.logprob for each in cool)
    assert ask(client, server.model, temperature=0).choices[0].logprobs is None


def test_log_probabilities_end_where_the_answer_is_cut(server: Served, client: openai.OpenAI) -> None:
    whole = ask(client, server.model, seed=3, logprobs=True)
    tokens = tokens_of(whole)
    text = texts(whole)[0]
    assert text
    stop = text[len(text) // 2 :][:2]
    first = tokens_of(ask(client, server.model, seed=3, logprobs=True, stop=stop))
    assert first == tokens[: len(first)]
    assert 0 < len(first) < len(tokens)
    chunks = client.chat.completions.create(
        model=server.model, messages=ASK, max_tokens=12, seed=3, logprobs=True, stream=True
    )
    streamed = [
        each for chunk in chunks if chunk.choices[0].logprobs for each in chunk.choices[0].logprobs.content or ()
    ]
    assert streamed == tokens


def test_an_answer_without_a_limit_fits_the_context(server: Served, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=server.model, messages=ASK, seed=1)
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 512


def test_stop_sequences_cut_the_answer(server: Served, client: openai.OpenAI) -> None:
    text = texts(ask(client, server.model, seed=3))[0]
    assert text
    stop = text[len(text) // 2 :][:2]
    cut = ask(client, server.model, seed=3, stop=[stop, "never to be found"])
    assert texts(cut)[0] == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_lists_have_pages_and_filters(server: Served, client: openai.OpenAI, tuned: FineTuningJob) -> None:
    made = [
        client.fine_tuning.jobs.create(
            model=server.model, training_file=tuned.training_file, metadata={"group": "listed", "index": str(index)}
        ).id
        for index in range(3)
    ]
    jobs = [job.id for job in client.fine_tuning.jobs.list(limit=2)]
    assert jobs[:3] == made[::-1]
    assert len(set(jobs)) == len(jobs)
    page = client.fine_tuning.jobs.list(after=made[2], limit=1)
    assert ([job.id for job in page.data], page.has_more) == ([made[1]], True)
    found = client.fine_tuning.jobs.list(metadata={"group": "listed", "index": "1"})
    assert [job.id for job in found] == [made[1]]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={'odd "key"\\': "two"})] == [tuned.id]
    for job in made:
        cancelled = client.fine_tuning.jobs.retrieve(job)
        if cancelled.finished_at is None:
            with suppress(openai.BadRequestError):  # it may end in between
                client.fine_tuning.jobs.cancel(job)
    files = [file.id for file in client.files.list(order="asc", limit=1)]
    assert files == [file.id for file in client.files.list()][::-1]
    assert tuned.training_file not in [file.id for file in client.files.list(purpose="batch")]
    with pytest.raises(openai.BadRequestError, match="no fine-tuning job 'ftjob-none'"):
        client.fine_tuning.jobs.list(after="ftjob-none")


def test_running_and_queued_jobs_can_be_cancelled(server: Served, client: openai.OpenAI) -> None:
    file = client.files.create(file=("long.jsonl", chat_lines(400)), purpose="fine-tune")
    running, queued = (
        client.fine_tuning.jobs.create(
            model=server.model, training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
        )
        for _ in range(2)
    )
    wait_until(lambda: client.fine_tuning.jobs.retrieve(running.id).estimated_finish, "the first steps", SLOW)
    client.files.delete(file.id)  # jobs have a copy
    assert client.fine_tuning.jobs.cancel(queued.id).status == "cancelled"
    assert client.fine_tuning.jobs.cancel(running.id).status == "cancelled"
    events = [event.message for event in client.fine_tuning.jobs.list_events(running.id, limit=1).data]
    assert events == ["The job was cancelled"]
    with pytest.raises(openai.BadRequestError, match="cancelled already"):
        client.fine_tuning.jobs.cancel(running.id)


def test_a_chat_of_several_turns_is_learned_answer_by_answer(server: Served, client: openai.OpenAI) -> None:
    line = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "First.", "weight": 0},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "Second.", "weight": 1},
            {"role": "user", "content": "Three?"},
            {"role": "assistant", "content": "Third."},
        ]
    }
    file = client.files.create(file=("turns.jsonl", json.dumps(line).encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=server.model, training_file=file.id, hyperparameters={"n_epochs": 1, "batch_size": 1}
    )
    job = finished(client, job.id)
    [last] = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (job.status, last.step_number) == ("succeeded", 2)


@pytest.mark.parametrize(
    ("examples", "given", "expected"),
    [
        (12, {}, (9, 1, 1.0)),
        (50, {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}, (3, 1, 1.0)),
        (5000, {}, (3, 10, 1.0)),
        (5000, {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 0.5}, (1, 8, 0.5)),
        (1, {}, (25, 1, 1.0)),
    ],
)
def test_auto_is_what_openai_published(examples: int, given: dict[str, Any], expected: tuple[int, int, float]) -> None:
    found = Hyperparameters.model_validate(given).resolve(examples)
    assert (found.n_epochs, found.batch_size, found.multiplier) == expected


@pytest.mark.parametrize(
    ("options", "param", "sentence"),
    [
        ({"temperature": 3}, "temperature", "temperature must be at most 2"),
        ({"temperature": "warm"}, "temperature", "temperature must be a number"),
        ({"n": 0}, "n", "n must be at least 1"),
        ({"messages": []}, "messages", "messages must not be empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "messages[0].role"),
        ({"tools": [{"type": "function"}]}, "tools", "does not offer 'tools'"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "does not offer 'frequency_penalty'"),
        ({"response_format": {"type": "json_object"}}, "response_format", "does not offer 'response_format'"),
        ({"extra_body": {"temprature": 1}}, "temprature", "did you mean 'temperature'?"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "not both"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"max_tokens": 1024}, "messages", "do not fit the 1024 tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
    ],
)
def test_what_is_not_offered_is_refused(
    server: Served, client: openai.OpenAI, options: dict[str, Any], param: str, sentence: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, server.model, **options)
    assert sentence in caught.value.message
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("options", "param", "sentence"),
    [
        ({"training_file": "file-none"}, "training_file", "there is no file 'file-none'"),
        ({"validation_file": "file-none"}, "validation_file", "there is no file 'file-none'"),
        ({"model": "gpt-4o-mini"}, "model", "there is no model 'gpt-4o-mini'"),
        ({"method": {"type": "dpo"}}, "method", "'supervised' only"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "nothing to other services"),
        ({"suffix": "a:b"}, "suffix", "letters, digits"),
        ({"suffix": "x" * 65}, "suffix", "at most 64"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters", "hyperparameters.n_epochs must be at least 1"),
        ({"hyperparameters": {"epochs": 1}}, "hyperparameters", "did you mean 'n_epochs'?"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "at most 512 characters"),
        ({"seed": -1}, "seed", "seed must be at least 0"),
    ],
)
def test_a_job_that_cannot_be_is_refused(
    server: Served, client: openai.OpenAI, tuned: FineTuningJob, options: dict[str, Any], param: str, sentence: str
) -> None:
    before = [job.id for job in client.fine_tuning.jobs.list(limit=1).data]
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(
            **{"model": server.model, "training_file": tuned.training_file, **options}  # type: ignore[arg-type]
        )
    assert sentence in caught.value.message
    assert caught.value.param == param
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1).data] == before


def test_a_job_whose_data_does_not_fit_the_model_fails_and_says_where(server: Served, client: openai.OpenAI) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 2000}, {"role": "assistant", "content": "yes"}]}
    file = client.files.create(file=("long.jsonl", json.dumps(long).encode()), purpose="fine-tune")
    job = finished(client, client.fine_tuning.jobs.create(model=server.model, training_file=file.id).id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "invalid_training_file"
    assert "more than the 1024 of the model's context" in job.error.message
    assert [event.level for event in client.fine_tuning.jobs.list_events(job.id, limit=1).data] == ["error"]
    content = chat_lines(1) + json.dumps(long).encode()
    file = client.files.create(file=("mixed.jsonl", content), purpose="fine-tune")
    job = finished(client, client.fine_tuning.jobs.create(model=server.model, training_file=file.id).id)
    assert job.status == "succeeded"  # with the others; what was left out is said
    warned = [event.message for event in client.fine_tuning.jobs.list_events(job.id) if event.level == "warn"]
    assert len(warned) == 1
    assert "1 of 2 examples were left out: example" in warned[0]


def test_models_that_are_not_there_or_not_to_be_deleted(server: Served, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "gpt-4o")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.PermissionDeniedError, match="base model"):
        client.models.delete(server.model)
    with pytest.raises(openai.NotFoundError, match="no fine-tuning job 'ftjob-none'"):
        client.fine_tuning.jobs.retrieve("ftjob-none")


def test_a_key_variable_that_is_not_set_ends_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "windowshift", "serve", "-m", "microworld", "--data", str(tmp_path)]
    for name, value, sentence in (("NO_SUCH_KEY", None, "is not set"), ("SHORT_KEY", "abc", "at least 16")):
        environment = {**os.environ, **({name: value} if value else {})}
        done = subprocess.run([*command, "--key-env", name], capture_output=True, text=True, env=environment)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_a_data_folder_has_one_server(server: Served) -> None:
    command = [sys.executable, "-m", "windowshift", "serve", "-m", server.model, "--port", "0"]
    done = subprocess.run([*command, "--data", str(server.data)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "windowshift serve" in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_reasoning_is_a_field_of_its_own() -> None:
    from windowshift.backends.serve.chat_request import ChatRequest
    from windowshift.backends.serve.choice import Choice, Usage
    from windowshift.backends.shared.refusal import unanswered
    from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling

    asked = ChatRequest.model_validate({"model": "m", "messages": ASK})
    said = Completion("k", "Yes.", "stop", 2, 5, reasoning="Hm.", reasoning_tokens=3)
    request = GenerateRequest("k", (Message("user", "hi"),), Model("m"), Sampling(max_tokens=4), 0)
    spent = unanswered(request, "Hm", 4, cut=True, prompt_tokens=5)
    choices = [Choice.of(index, each, (), "messages") for index, each in enumerate([said, spent])]
    found = asked.writer("fp").whole(choices, Usage.of([said, spent], 2))
    messages = [choice["message"] for choice in found["choices"]]
    assert [(each["content"], each["reasoning_content"]) for each in messages] == [("Yes.", "Hm."), (None, "Hm")]
    assert [choice["finish_reason"] for choice in found["choices"]] == ["stop", "length"]
    assert found["usage"]["completion_tokens"] == 2 + 3 + 4
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] == 7


def test_a_served_model_is_told_one_date(tmp_path: Path) -> None:
    from windowshift.backends.serve.state import ServerState

    state = ServerState(tmp_path)
    day = state.day
    (tmp_path / "template_date").write_text("2031-03-01\n")
    assert len(day) == len("2031-03-01")
    assert state.day == "2031-03-01"  # the folder's, and not the clock's
    state.close()
