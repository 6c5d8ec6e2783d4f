"""`windowshift tui --serve` in a real browser: drawn, answering keys, behind its token, on loopback alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.chromium import page
from tests.generated_store import generate_store


@pytest.mark.slow
async def test_the_screens_in_a_browser(tmp_path: Path) -> None:
    generate_store(tmp_path / "ws", prompts=8, data_size=8).close()
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "windowshift", "tui", str(tmp_path / "ws"), "--serve", "--port", "0",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        said = (await asyncio.wait_for(server.stdout.readline(), 60)).decode()
        found = re.search(r"http://\S+", said)
        assert found is not None, said
        url = found[0]
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        await listening(f"http://{parts.netloc}")
        await closed_without_the_token(f"http://{parts.netloc}")
        async with page(tmp_path / "profile") as shown:
            await shown.command("Page.navigate", url=url)
            await shown.until(lambda: b"med-short" in shown.received, "the list of experiments")
            before = await drawn(shown.ink)
            # Nobody has clicked: the terminal has the keys from the start.
            assert "xterm-helper-textarea" in await shown.evaluate("document.activeElement.className")
            await shown.press("Enter", 13, "\r")
            await shown.until(lambda: b"very_long" in shown.received, "the grid")
            # The grid has many more letters than the list with one line.
            await drawn(shown.ink, over=before * 1.2)
            hosts = {urlsplit(asked).hostname for asked in shown.requested.values()}
            assert hosts == {"127.0.0.1"}
            assert all(asked.startswith((url, "ws://")) or "favicon" in asked for asked in shown.requested.values())
    finally:
        server.send_signal(signal.SIGINT)
        await asyncio.wait_for(server.communicate(), 30)


async def listening(root: str) -> None:
    """Wait for the server: it says its address just before it listens."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            with suppress(aiohttp.ClientConnectorError):
                async with session.get(root):
                    return
            await asyncio.sleep(0.01)


async def closed_without_the_token(root: str) -> None:
    async with aiohttp.ClientSession() as session:
        for place in ("/", "/ws", "/static/js/textual.js", "/wrong-token/"):
            async with session.get(root + place) as answer:
                assert answer.status == 404, place
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{root}/ws")


async def drawn(ink: Callable[[], Awaitable[int]], over: float = 500.0) -> int:
    """Wait until the terminal has more drawn pixels than `over`; return how many."""
    async with asyncio.timeout(60):
        while (count := await ink()) <= over:
            await asyncio.sleep(0.05)
    return count
