"""The Batch API of `windowshift serve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.processes import wait_until
from tests.served import Served, served

SLOW = 120.0


@pytest.fixture(scope="module")
def server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tiny_llama, tmp_path_factory.mktemp("served")) as found:
        yield found


def line(server: Served, name: str, **body: Any) -> dict[str, Any]:
    chat = {"model": server.model, "messages": [{"role": "user", "content": "Bees?"}], "max_tokens": 8, **body}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": chat}


def start(client: openai.OpenAI, lines: list[dict[str, Any]], **options: Any) -> Batch:
    content = "".join(json.dumps(each) + "\n" for each in lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **options
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    over = ("completed", "failed", "cancelled")
    wait_until(lambda: client.batches.retrieve(batch.id).status in over, "the batch's end", SLOW)
    return client.batches.retrieve(batch.id)


def results(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    assert file is not None
    rows = [json.loads(row) for row in client.files.content(file).text.splitlines()]
    found = {row["custom_id"]: row["response"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_batch_answers_every_request_once_as_a_chat_would(server: Served) -> None:
    client = server.client()
    lines = [line(server, f"r{seed}", seed=seed) for seed in range(300)]
    lines += [line(server, "unknown", model="gpt-4o"), line(server, "long", max_tokens=1024), line(server, "n", n=0)]
    batch = ended(client, start(client, lines, metadata={"run": "one"}))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 303, "completed": 300, "failed": 3}
    assert batch.metadata == {"run": "one"}
    good, bad = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert set(good) == {f"r{seed}" for seed in range(300)}
    chat = client.chat.completions.create(
        model=server.model, messages=[{"role": "user", "content": "Bees?"}], max_tokens=8, seed=7
    )
    assert good["r7"]["body"]["choices"][0]["message"]["content"] == chat.choices[0].message.content
    assert {name: response["status_code"] for name, response in bad.items()} == {"unknown": 404, "long": 400, "n": 400}
    assert bad["unknown"]["body"]["error"]["code"] == "model_not_found"
    with server.raw() as http:
        value = http.get(f"batches/{batch.id}").json()
    Batch.model_validate_json(json.dumps(value), strict=True)
    assert set(value) <= set(Batch.model_fields)
    assert [each.id for each in client.batches.list(limit=1).data] == [batch.id]


def test_an_input_that_is_wrong_fails_and_names_its_lines(server: Served) -> None:
    client = server.client()
    lines = [line(server, "a"), {**line(server, "b"), "method": "GET"}, line(server, "a"), {"custom_id": "c"}]
    batch = ended(client, start(client, lines))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert [each.line for each in batch.errors.data or ()] == [2, 3, 4]
    assert batch.output_file_id is None
    with pytest.raises(openai.BadRequestError, match="failed already"):
        client.batches.cancel(batch.id)
    with pytest.raises(openai.BadRequestError, match="there is no file"):
        client.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")


def test_a_cancelled_batch_gives_what_it_has(server: Served) -> None:
    client = server.client()
    lines = [line(server, f"r{index}", max_tokens=200, n=64) for index in range(60)]
    batch = start(client, lines)
    wait_until(lambda: done(client, batch) > 0, "the first answers", SLOW)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    assert 0 < len(results(client, batch.output_file_id)) == done(client, batch) < 60


def done(client: openai.OpenAI, batch: Batch) -> int:
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    return counts.completed


@pytest.mark.slow
def test_a_killed_server_goes_on_with_its_batch(tiny_llama: Path, tmp_path: Path) -> None:
    with served(tiny_llama, tmp_path / "data") as server:
        client = server.client()
        batch = start(client, [line(server, f"r{index}", max_tokens=60, n=64, seed=index) for index in range(40)])
        wait_until(lambda: done(client, batch) > 0, "the first answers", SLOW)
        server.process.kill()
    partial = tmp_path / "data" / "batches" / batch.id / "output.jsonl"
    with partial.open("ab") as file:
        file.write(b'{"custom_id": "cut sh')
    with served(tiny_llama, tmp_path / "data") as server:
        client = server.client()
        batch = ended(client, batch)
        assert batch.status == "completed"
        assert len(results(client, batch.output_file_id)) == 40
        assert not partial.exists()
