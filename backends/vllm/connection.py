"""The HTTP connection to a vLLM server: its address, its key, and the sentences for what goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from windowshift.backends.openai.key import Key
from windowshift.backends.vllm.engine import EngineError
from windowshift.backends.vllm.key import server_key
from windowshift.backends.vllm.options import KEY_ENV, VllmOptions
from windowshift.core.contract.errors import MissingExtraError

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("windowshift.vllm")
_LOOK_SECONDS = 15.0
_SHOWN = 300
# vLLM closes a connection that was idle for 5 s; one that is used again at that very moment would be lost.
_IDLE_SECONDS = 2.0
_LONGEST_PAUSE = 10.0
_AWAY = (502, 503, 504)
_DEAD = (
    "(the engine has died: the server's log says of what; on a CPU, start it with windowshift's --worker-extension-cls "
    "or with  --no-enable-chunked-prefill)"
)

Again = Literal["always", "unsent", "never"]
"""When the same may be asked again: whenever nobody answered, only where nobody can have read it, or never."""


class Connection:
    """Asks a vLLM server, and waits for one that stays away for a while.

    Args:
        options: with `base_url`.
    """

    def __init__(self, options: VllmOptions) -> None:
        assert options.base_url is not None
        self._options, self.address = options, options.base_url
        self._session: aiohttp.ClientSession | None = None
        self._known_key: Key | None = None
        self._away_since: float | None = None

    @property
    def key_source(self) -> str:
        """Where the key was found."""
        return self._key.source

    @property
    def away(self) -> bool:
        """Whether the server is being waited for."""
        return self._away_since is not None

    def look(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask once, without an event loop.

        Raises:
            EngineError: the server cannot be reached, or refused.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers(), "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.address}{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=_LOOK_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            raise self._refused(error.code, error.read().decode(errors="replace")) from None
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from None

    async def json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, again: Again = "always"
    ) -> dict[str, Any]:
        """As `text`, read as a JSON object."""
        text = await self.text(method, path, body, again=again)
        try:
            found = json.loads(text)
        except ValueError:
            raise self.broken("it is no JSON") from None
        if not isinstance(found, dict):
            raise self.broken("it is no JSON object")
        return found

    async def text(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, again: Again = "always"
    ) -> str:
        """Ask until there is an answer; a server that is away is waited for, for `patience` seconds.

        Raises:
            EngineError: the server refused, stayed away, or did not answer in time.
        """
        pause, failing_since = 0.5, None
        while True:
            try:
                found = await self._once(method, path, body)
            except _AwayError as error:
                if again == "never" or (again == "unsent" and not error.unsent):
                    raise
                failing_since = failing_since or time.monotonic()
                self._wait_for(error, failing_since)
            else:
                if self._away_since is not None:
                    log.info("the vLLM server at %s answers again", self.address)
                self._away_since = None
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def broken(self, what: str) -> EngineError:
        """The sentence for an answer that vLLM does not give."""
        return EngineError(f"the answer of the vLLM server at {self.address} cannot be used: {what}")

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- once -----------------------------------------------------------------------------------

    @property
    def _key(self) -> Key:
        if self._known_key is None:
            self._known_key = server_key(self._options.key_env)
        return self._known_key

    def _headers(self) -> dict[str, str]:
        key = self._key
        return {} if key.source == "none needed" else {"Authorization": f"Bearer {key.value}"}

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> str:
        try:
            import aiohttp
        except ModuleNotFoundError as error:
            raise MissingExtraError("backend 'vllm'", "vllm", error.name or "aiohttp") from error
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=self._options.timeout, sock_connect=_LOOK_SECONDS),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            )
        try:
            async with self._session.request(method, f"{self.address}{path}", json=body, allow_redirects=False) as got:
                text = await got.text()
                if got.status != 200:
                    raise self._refused(got.status, text)
                return text
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error, unsent=True) from None
        except aiohttp.ConnectionTimeoutError as error:
            raise self._unreachable(error, unsent=True) from None
        except TimeoutError:
            raise EngineError(f"the vLLM server at {self.address} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None

    def _wait_for(self, error: _AwayError, failing_since: float) -> None:
        """Say that the server is away, or that it has been for too long.

        All who wait share one patience, so that a thousand requests do not wait one after another; a single one that
        goes on failing while others are answered has its own.

        Raises:
            EngineError: for too long.
        """
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("%s; waiting up to %.0f s for it", error, self._options.patience)
        if now - min(self._away_since, failing_since) >= self._options.patience:
            raise EngineError(f"{error}; waited {self._options.patience:.0f} s: run again once it is back") from None

    def _refused(self, status: int, text: str) -> EngineError:
        try:
            content = json.loads(text)
            said = content.get("error", content)
            said = said.get("message", said) if isinstance(said, dict) else said
        except (ValueError, AttributeError):
            said = text
        words = self._key.redact(" ".join(str(said).split()))
        words = words if len(words) <= _SHOWN else f"{words[:_SHOWN]} ..."
        if status in (401, 403):
            return EngineError(
                f"the vLLM server at {self.address} refuses the key: put its key into the environment variable "
                f"{self._options.key_env or KEY_ENV}",
                status,
            )
        sentence = f"the vLLM server at {self.address} refused ({status}): {words}"
        if status == 500 and "EngineCore" in words:
            return _AwayError(f"{sentence} {_DEAD}", status)
        if status in _AWAY:
            return _AwayError(sentence, status)
        return EngineError(sentence, status)

    def _unreachable(self, error: Exception, *, unsent: bool = False) -> EngineError:
        reason = self._key.redact(" ".join(str(getattr(error, "reason", error)).split())) or type(error).__name__
        return _AwayError(f"there is no vLLM server at {self.address}: {reason}", unsent=unsent)


class _AwayError(EngineError):
    """Nobody answered, who may answer later; `unsent`: and nobody can have read the question."""

    def __init__(self, sentence: str, status: int | None = None, *, unsent: bool = False) -> None:
        super().__init__(sentence, status)
        self.unsent = unsent
