"""The prompt with the model's chat template: rendered by a process of its own, or a sentence that says why not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.tui_pilot import app, arrive, screen_text, store, until
from windowshift.core.store.connection import to_json
from windowshift.tui.read.template_client import ChatText, ChatTexts, TemplateRequest
from windowshift.tui.screens.cell.completion import CompletionScreen
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.grid.screen import GridScreen

LOCAL = {"backend": "local", "model": {"base": "microworld", "revision": None}}


def workspace(path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Any], channel: str = "user") -> Path:
    writer = store(path, monkeypatch, prompts=6, data_size=6)
    writer.connection.execute("UPDATE jobs SET inputs = ?", (to_json({**inputs, "channel": channel}),))
    writer.connection.execute("UPDATE phrases SET text = 'Be [brief] ' || id || ':'")
    writer.close()
    return path


async def completion(pilot: Pilot[None]) -> Any:
    for kind in (GridScreen, CellScreen):
        await arrive(pilot, kind)
        await pilot.press("enter")
    return await arrive(pilot, CompletionScreen)


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        ("user", "<|bos|><|user|>Be [brief] 1:\n\nWhat is"),
        ("system", "<|bos|><|system|>Be [brief] 1:<|end|><|user|>What is"),
    ],
)
async def test_the_prompt_as_the_model_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channel: str, text: str
) -> None:
    place = workspace(tmp_path, monkeypatch, LOCAL, channel)
    async with app(place).run_test(size=(100, 30)) as pilot:
        screen = await completion(pilot)
        shown = lambda: str(screen.query_one("#prompt-text").content)  # noqa: E731
        await pilot.press("t")
        assert "loading the tokenizer" in screen_text(pilot)
        await until(pilot, lambda: text in shown(), patience=60.0)
        assert "as the model read it" in screen_text(pilot)
        # The generated store counts 12 tokens for every prompt: one that has others is not what the run read.
        assert "The run counted 12 tokens: it read another prompt than this one." in shown()
        await pilot.press("n")
        await until(pilot, lambda: "number 1?<|end|><|assistant|>" in shown())
        await pilot.press("t")
        assert "<|user|>" not in shown()
        await pilot.press("t")
        assert "<|user|>" in shown()
        process = screen._chats._process
        await pilot.press("escape")
        await until(pilot, lambda: process.poll() is not None)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"backend": "openai", "model": {"base": "gpt-4.1"}}, "backend 'openai' takes the messages as they are shown"),
        ({"backend": "local", "model": {"base": "/no/folder"}}, "model folder '/no/folder' does not exist"),
        ({}, "does not say which model"),
    ],
)
async def test_what_cannot_be_known_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Any], sentence: str
) -> None:
    place = workspace(tmp_path, monkeypatch, inputs)
    async with app(place).run_test(size=(100, 30)) as pilot:
        screen = await completion(pilot)
        await pilot.press("t")
        await until(pilot, lambda: sentence in str(screen.query_one("#prompt-text").content), patience=60.0)


def test_a_process_that_ends_is_a_sentence() -> None:
    texts = ChatTexts([sys.executable, "-c", "input()"])
    request = TemplateRequest("local", "microworld", None, (("user", "hello"),))
    assert "ended without an answer" in texts.ask(request).error
    assert texts.known(request) == texts.ask(request)
    texts.close()
    assert texts.ask(request) == ChatText(error="the screen was left")
