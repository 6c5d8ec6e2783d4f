"""The cache of judges' answers: the same question to the same model is asked, and paid, once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from windowshift.core.contract.backend import Backend
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.generation import Completion, GenerateRequest, TokenLogprob

FILE = "answers.sqlite"


class AnswerCache:
    """Answers by content: model, messages, sampling and what was asked of log-probabilities.

    The seed has no part in it: judges answer greedily. A failed answer is not kept.

    Args:
        folder: where the file is, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self._asking: dict[str, asyncio.Event] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (digest TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    async def generate(
        self, backend: Backend, name: str, requests: Sequence[GenerateRequest]
    ) -> AsyncGenerator[Completion, None]:
        """Answer all requests, those of equal content together; what is known is not asked.

        What another call is asking already is waited for, and asked here only if there came no answer.

        Args:
            backend: what answers.
            name: its name, a part of the content: the same model name elsewhere is another model.
            requests: what is asked.
        """
        groups: dict[str, list[GenerateRequest]] = {}
        for request in requests:
            groups.setdefault(digest(name, request), []).append(request)
        known: list[tuple[str, Completion]] = []
        elsewhere: list[str] = []
        asked: list[GenerateRequest] = []
        for content, group in groups.items():
            found = self._get(content)
            if found is not None:
                known.append((content, found))
            elif content in self._asking:
                elsewhere.append(content)
            else:
                asked.append(replace(group[0], key=content))
                self._asking[content] = asyncio.Event()
        try:
            for content, found in known:
                for request in groups[content]:
                    yield replace(found, key=request.key)
            async with aclosing(backend.generate(asked)) as stream:
                async for answer in stream:
                    if answer.finish != "failed":
                        self._put(answer.key, answer)
                    if answer.key in self._asking:
                        self._asking.pop(answer.key).set()
                    for index, request in enumerate(groups[answer.key]):
                        # Paid once: the others of the group cost nothing.
                        yield replace(answer, key=request.key, usd=answer.usd if index == 0 else None)
        finally:
            for request in asked:
                if request.key in self._asking:
                    self._asking.pop(request.key).set()
        if elsewhere:
            for content in elsewhere:
                if content in self._asking:
                    await self._asking[content].wait()
            rest = [request for content in elsewhere for request in groups[content]]
            async with aclosing(self.generate(backend, name, rest)) as stream:
                async for answer in stream:
                    yield answer

    def _get(self, content: str) -> Completion | None:
        try:
            row = self._connection.execute("SELECT answer FROM answers WHERE digest = ?", (content,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if row is None:
            return None
        data: dict[str, Any] = json.loads(row[0])
        tokens = data.pop("token_logprobs")
        if tokens is not None:
            data["token_logprobs"] = tuple(
                TokenLogprob(one["token"], one["logprob"], tuple((text, value) for text, value in one["top"]))
                for one in tokens
            )
        return Completion("", usd=None, **data)

    def _put(self, content: str, answer: Completion) -> None:
        kept = asdict(answer)
        data = {name: kept[name] for name in kept if name not in ("key", "error", "proofs", "usd")}
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (content, json.dumps(data)))
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _unusable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"the cache of judges' answers {self._path} cannot be used ({error}): move it away")


def digest(name: str, request: GenerateRequest) -> str:
    """The digest of everything that determines a greedy answer."""
    model = asdict(request.model)
    for later in ("merged", "template"):
        if model[later] is None:
            del model[later]  # answers of before there was one are answers still
    content = [
        name,
        model,
        [asdict(turn) for turn in request.messages],
        asdict(request.sampling),
        request.logprobs,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]
