"""Backend `local`, streams: pieces join to the completion, `stop` ends the work, and so does giving up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from windowshift.backends.local.backend import LocalBackend
from windowshift.core.contract.backend import StreamingBackend
from windowshift.core.contract.generation import Completion, GenerateRequest, Message, Model, Sampling, WrittenPiece


def ask(model: str, count: int, tokens: int = 60, **more: object) -> list[GenerateRequest]:
    sampling = Sampling(max_tokens=tokens)
    first = GenerateRequest("", (Message("user", "Tell me of bees and rivers."),), Model(model), sampling, 0)
    return [replace(first, key=f"s{n}", seed=n, **more) for n in range(count)]  # type: ignore[arg-type]


async def read(
    backend: StreamingBackend, requests: Sequence[GenerateRequest]
) -> tuple[list[WrittenPiece], list[Completion]]:
    pieces: list[WrittenPiece] = []
    completions: list[Completion] = []
    async for each in backend.stream(requests):
        (pieces if isinstance(each, WrittenPiece) else completions).append(each)  # type: ignore[arg-type]
    return pieces, sorted(completions, key=lambda one: one.key)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("logprobs", [None, 1])
async def test_pieces_join_to_the_completion(
    tiny_llama: Path, workers: int, logprobs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windowshift.backends.local.watch.PIECE_SECONDS", 0.0)
    backend = LocalBackend({"workers": workers, "threads": 1})
    plain = ask(str(tiny_llama), 6, logprobs=logprobs)
    wanted = sorted([each async for each in backend.generate(plain)], key=lambda one: one.key)
    pieces, found = await read(backend, [replace(each, pieces=True) for each in plain])
    await backend.aclose()
    assert found == wanted
    if workers == 1:
        assert len(pieces) > 6  # several of each
    for each in found:
        mine = [piece for piece in pieces if piece.key == each.key]
        assert each.text.startswith("".join(piece.text for piece in mine))
        if logprobs is not None:
            told = [one for piece in mine for one in piece.token_logprobs or ()]
            assert list(each.token_logprobs or ())[: len(told)] == told


async def test_nobody_is_told_who_does_not_ask(tiny_llama: Path) -> None:
    backend = LocalBackend({"workers": 1, "threads": 1})
    pieces, found = await read(backend, ask(str(tiny_llama), 3))
    await backend.aclose()
    assert not pieces
    assert len(found) == 3


async def test_a_stop_sequence_ends_the_work_at_its_token(tiny_llama: Path) -> None:
    backend = LocalBackend({"workers": 1, "threads": 1})
    plain = ask(str(tiny_llama), 4)
    wanted = sorted([each async for each in backend.generate(plain)], key=lambda one: one.key)
    stop = wanted[0].text[10:13]
    _, found = await read(backend, [replace(each, stop=(stop, "\u0000never")) for each in plain])
    await backend.aclose()
    stopped = 0
    for mine, whole in zip(found, wanted, strict=True):
        assert whole.text.startswith(mine.text.rstrip("\ufffd"))
        if stop in whole.text:
            stopped += 1
            assert stop in mine.text
            assert mine.tokens < whole.tokens
            assert mine.finish == "stop"
            assert len(mine.text) < whole.text.index(stop) + 40
        else:
            assert mine == whole
    assert stopped


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_is_given_up_ends(tiny_llama: Path, workers: int) -> None:
    backend = LocalBackend({"workers": workers, "threads": 1, "batch_rows": 4})
    requests = ask(str(tiny_llama), 30, tokens=400)
    stream = backend.stream([replace(each, key=f"g{each.key}", pieces=True) for each in requests])
    found: list[Completion] = []
    async for each in stream:
        if isinstance(each, WrittenPiece):
            backend.give_up([f"gs{n}" for n in range(1, 30)])  # again and again: it may be told any number of times
        else:
            found.append(each)
    await backend.aclose()
    assert "gs0" in [each.key for each in found]
    assert sum(each.tokens or 0 for each in found) < 4 * 400
    assert not backend._given_up  # nothing is remembered of calls that have ended


async def test_a_text_is_continued_as_it_is(tiny_llama: Path) -> None:
    backend = LocalBackend({"workers": 1, "threads": 1})
    (one,) = ask(str(tiny_llama), 1)
    raw = replace(one, messages=(), prompt="Bees", sampling=Sampling(temperature=0.0, max_tokens=5))
    _, (short,) = await read(backend, [raw])
    _, (longer,) = await read(backend, [replace(raw, prompt="Bees" + short.text)])
    await backend.aclose()
    assert (short.finish, short.reasoning) == ("length", None)
    assert short.prompt_tokens < longer.prompt_tokens < 20  # no template around it
    assert longer.text != short.text
