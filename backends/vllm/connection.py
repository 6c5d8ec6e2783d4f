"""The HTTP connection to a vLLM server: its address, its key, and the sentences for what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from windowshift.backends.openai.faults import reason_in
from windowshift.backends.shared.bounded import ENCODINGS, MOST_BYTES, Unpacked, at_once
from windowshift.backends.shared.faults import BrokenAnswerError, broken
from windowshift.backends.shared.key import ApiKey
from windowshift.backends.shared.said import load_json
from windowshift.backends.vllm.engine import EngineError
from windowshift.backends.vllm.key import server_key
from windowshift.backends.vllm.options import KEY_ENV, VllmOptions
from windowshift.core.contract.errors import MissingExtraError, UnaskedError
from windowshift.core.contract.redaction import Redactor

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


class VllmConnection:
    """Asks a vLLM server, and waits for one that stays away for a while.

    Args:
        options: with `base_url`.
    """

    def __init__(self, options: VllmOptions) -> None:
        assert options.base_url is not None
        self._options, self.address = options, options.base_url
        self._session: aiohttp.ClientSession | None = None
        self._known_key: ApiKey | None = None
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
        seconds = min(_LOOK_SECONDS, self._options.timeout)

        async def ask() -> tuple[int, bytes]:
            async with self._new_session(seconds) as session:  # the shared one belongs to another event loop
                return await self._asked(session, "GET" if body is None else "POST", path, body)

        status, raw = at_once(ask)
        if status != 200:
            raise self._refused(status, raw)
        return self._object(raw)

    async def json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, again: Again = "always"
    ) -> dict[str, Any]:
        """As `content`, read as a JSON object."""
        return self._object(await self.content(method, path, body, again=again))

    def _object(self, raw: bytes) -> dict[str, Any]:
        try:
            found = load_json(raw)
        except BrokenAnswerError as error:
            raise self.broken(str(error)) from None
        if not isinstance(found, dict):
            raise self.broken("it is no JSON object")
        return found

    async def content(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, again: Again = "always"
    ) -> bytes:
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

    @property
    def redactor(self) -> Redactor:
        """What takes the key out of all that the server says."""
        return self._key.redactor

    # -- once -----------------------------------------------------------------------------------

    @property
    def _key(self) -> ApiKey:
        if self._known_key is None:
            self._known_key = server_key(self._options.key_env)
        return self._known_key

    def _headers(self) -> dict[str, str]:
        key = self._key
        return {} if key.source == "none needed" else {"Authorization": f"Bearer {key.value}"}

    def _new_session(self, seconds: float) -> aiohttp.ClientSession:
        try:
            import aiohttp
        except ModuleNotFoundError as error:
            raise MissingExtraError("backend 'vllm'", "vllm", error.name or "aiohttp") from error
        return aiohttp.ClientSession(
            headers={**self._headers(), "Accept-Encoding": ENCODINGS},
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=min(_LOOK_SECONDS, seconds)),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            auto_decompress=False,  # `Unpacked` does it, and stops at a cap
        )

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        if self._session is None:
            self._session = self._new_session(self._options.timeout)
        status, raw = await self._asked(self._session, method, path, body)
        if status != 200:
            raise self._refused(status, raw)
        return raw

    async def _asked(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        """Send one request; the status and the whole body, within the session's time and `MOST_BYTES`."""
        import aiohttp

        try:
            async with session.request(method, f"{self.address}{path}", json=body, allow_redirects=False) as got:
                unpacked = Unpacked(got.headers.get("Content-Encoding", ""), MOST_BYTES)
                raw = bytearray()
                async for piece in got.content.iter_any():
                    raw += unpacked.feed(piece)
                unpacked.end()
                return got.status, bytes(raw)
        except BrokenAnswerError as error:
            raise self.broken(str(error)) from None
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error, unsent=True) from None
        except aiohttp.ConnectionTimeoutError as error:
            raise self._unreachable(error, unsent=True) from None
        except TimeoutError:
            raise EngineError(f"the vLLM server at {self.address} did not answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unreachable(error) from None
        except Exception as error:  # whatever is raised while an answer is read
            raise self.broken(broken(error)) from None

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

    def _refused(self, status: int, raw: bytes | str) -> EngineError:
        try:
            said = reason_in(load_json(raw))
        except BrokenAnswerError:
            said = reason_in(raw)
        words = self.redactor.said(said, _SHOWN) or "without a reason"
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
        reason = self.redactor.said(error, _SHOWN) or type(error).__name__
        return _AwayError(f"there is no vLLM server at {self.address}: {reason}", unsent=unsent)


class _AwayError(EngineError, UnaskedError):
    """Nobody answered, who may answer later; `unsent`: and nobody can have read the question."""

    def __init__(self, sentence: str, status: int | None = None, *, unsent: bool = False) -> None:
        super().__init__(sentence, status)
        self.unsent = unsent
