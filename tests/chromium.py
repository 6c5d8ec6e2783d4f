"""A headless Chromium for tests, driven over its DevTools protocol with aiohttp, which textual-serve brings along."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0
INK = """
(() => {
  const canvas = document.querySelector("canvas.xterm-text-layer");
  if (!canvas) return 0;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let i = 0; i < pixels.length; i += 4) sum += pixels[i] + pixels[i + 1] + pixels[i + 2] > 330 ? 1 : 0;
  return sum;
})()
"""


def program() -> str:
    """Return Chromium's path; its absence is a failure, because a skipped test shows nothing."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("no Chromium is installed: apt-get install chromium (`.ci/run` does)")
    return found


class Page:
    """One tab: commands, and what the network said."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requested: dict[str, str] = {}
        """The addresses that were asked for, by request; what the page's own policy blocked never left."""
        self.received = b""
        """Everything that web sockets brought."""

    async def listen(self) -> None:
        """Take answers and events until the socket closes."""
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            elif found["method"] == "Network.requestWillBeSent":
                self.requested[found["params"]["requestId"]] = found["params"]["request"]["url"]
            elif found["method"] == "Network.loadingFailed" and found["params"].get("blockedReason") == "csp":
                self.requested.pop(found["params"]["requestId"], None)
            elif found["method"] == "Network.webSocketFrameReceived":
                frame = found["params"]["response"]
                data = frame["payloadData"]
                self.received += base64.b64decode(data) if frame["opcode"] == 2 else data.encode()

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and return its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        found = await asyncio.wait_for(answer, PATIENCE)
        if "navigated" in found.get("error", {}).get("message", "") and method == "Runtime.evaluate":
            return {"result": {}}  # asked of the page that a link has just left: the next one will say it
        assert "error" not in found, found
        return dict(found["result"])

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = await self.command("Runtime.evaluate", expression=expression)
        return found["result"].get("value")

    async def press(self, key: str, code: int, text: str) -> None:
        """Press a key, wherever the page has put its focus."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if kind == "keyDown" else {}
            await self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more
            )

    async def until(self, predicate: Callable[[], Any], what: str) -> None:
        """Wait for a predicate.

        Raises:
            AssertionError: it stayed false.
        """
        end = asyncio.get_running_loop().time() + PATIENCE
        while not predicate():
            assert asyncio.get_running_loop().time() < end, f"waited {PATIENCE:.0f} s for {what}"
            await asyncio.sleep(0.02)

    async def ink(self) -> int:
        """Return how many pixels of the terminal are bright: letters, in a dark theme."""
        return int(await self.evaluate(INK))


@asynccontextmanager
async def page(profile: Path) -> AsyncIterator[Page]:
    """Start Chromium with an empty profile and yield its one tab."""
    process = await asyncio.create_subprocess_exec(
        program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
        "--remote-debugging-port=0", "--window-size=1200,700", "about:blank",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        while not (found := re.search(rb"DevTools listening on ws://([^/]+)/", await process.stderr.readline())):
            assert not process.stderr.at_eof(), "Chromium ended at once"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{found[1].decode()}/json") as answer:
                tab = next(tab for tab in await answer.json() if tab["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                shown = Page(socket)
                listening = asyncio.create_task(shown.listen())
                await shown.command("Network.enable")
                await shown.command("Page.enable")
                yield shown
                listening.cancel()
    finally:
        process.kill()
        await process.communicate()
