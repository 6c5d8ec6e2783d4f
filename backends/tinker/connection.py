"""The connection: clients of one server, its key, its faults, and what it offers."""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from windowshift.backends.shared.bounded import at_once, bounded_transport
from windowshift.backends.shared.faults import BrokenAnswerError, Fault, ServiceError, service_error
from windowshift.backends.shared.key import ApiKey, find_key
from windowshift.backends.tinker.faults import fault_of
from windowshift.backends.tinker.options import TinkerOptions
from windowshift.backends.tinker.said import Offered, offered
from windowshift.core.contract.errors import BackendError, MissingExtraError

if TYPE_CHECKING:
    from tinker import RestClient, ServiceClient

T = TypeVar("T")
LOOK_SECONDS = 15.0
PROBE_SECONDS = 5.0
ANSWER_SECONDS = 900.0  # for a request as a whole; the SDK asks anew for what takes longer
_GOODBYE_SECONDS = 5.0
_NO_KEY = "tml-none"  # what a server without keys is sent: the client refuses to start without one


def _as_it_is(said: T) -> T:
    return said


class TinkerConnection:
    """What backend `tinker` needs of a server. Clients are made at the first use.

    Args:
        options: where the server is and which key it takes.
    """

    def __init__(self, options: TinkerOptions) -> None:
        self.options = options
        self._key: ApiKey | None = None
        self._models: dict[str, Offered] | None = None
        self._looked: tuple[float, str | None] = (-PROBE_SECONDS, None)
        self._looking = threading.Lock()

    @property
    def key(self) -> ApiKey:
        """The key.

        Raises:
            BackendError: there is none, or it is none of Tinker's.
        """
        if self._key is None:
            found = find_key(self.options.key_env, "tinker")
            if found.source == "none needed":
                found = ApiKey(_NO_KEY, "none needed")
            elif not found.value.startswith(("tml-", "eyJ")):
                raise BackendError(
                    f"the key that {self.options.key_env} holds is none of Tinker's: those begin with 'tml-'"
                )
            self._key = found
        return self._key

    # -- clients --------------------------------------------------------------------------------

    def rest(self) -> RestClient:
        """The client that lists and deletes; shared by the process.

        Raises:
            ServiceError: the server is not there, or refuses the key.
            BackendError: there is no key, or the SDK is not installed.
        """
        self._ready()
        import tinker

        return self._ask(
            "the server", lambda: tinker.RestClient(base_url=self.options.base_url, api_key=self.key.value)
        )

    def session(self, name: str) -> ServiceClient:
        """A session of its own; nothing is sent before it is used.

        Raises:
            BackendError: as `rest`.
        """
        self._ready()
        import tinker

        return tinker.ServiceClient(
            base_url=self.options.base_url,
            api_key=self.key.value,
            display_name=name,
            user_metadata={"made_by": "windowshift"},
        )

    def _ready(self) -> None:
        """Look that the SDK is there and that somebody answers: it would try for minutes, without a word."""
        os.environ.setdefault("TINKER_TELEMETRY", "0")  # unless a person asked for it
        try:
            import tinker  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError("backend 'tinker'", "tinker", error.name or "tinker") from error
        logging.getLogger("tinker").setLevel(logging.ERROR)  # its retries are told by our own sentences
        keep_within_bounds(self.options.base_url)
        _ = self.key
        problem = self.absent()
        if problem is not None:
            raise service_error(f"{self.options.base_url}: {problem}", Fault("again", problem))

    def absent(self) -> str | None:
        """Why nobody answers at the address; None: somebody does."""
        import httpx

        async def ask() -> int:
            async with httpx.AsyncClient(
                transport=bounded_transport(httpx, self.options.base_url, LOOK_SECONDS)
            ) as client:
                return (await client.get(f"{self.options.base_url}/api/v1/healthz")).status_code

        try:
            status = at_once(ask)
        except (httpx.HTTPError, OSError, ValueError, BrokenAnswerError) as error:
            reason = self.key.redactor.said(error) or type(error).__name__
            return f"the server cannot be reached ({reason})"
        return None if status < 500 else f"the server is not ready (status {status})"

    def _absent_lately(self) -> str | None:
        """As `absent`, asked once for all who wait."""
        with self._looking:
            if time.monotonic() - self._looked[0] >= PROBE_SECONDS:
                self._looked = time.monotonic(), self.absent()
            return self._looked[1]

    async def present(self, what: str) -> None:
        """Wait until somebody answers at the address.

        Raises:
            ServiceError: nobody did for `patience` seconds.
        """
        begun = time.monotonic()
        while (problem := await asyncio.to_thread(self.absent)) is not None:
            self._too_long(what, problem, begun)
            await asyncio.sleep(1.0)

    def _too_long(self, what: str, problem: str, since: float) -> None:
        if time.monotonic() - since >= self.options.patience:
            raise ServiceError(
                f"{what}: {self.options.base_url}: {problem}; given up after {self.options.patience:.0f} s: run again "
                "once it is back",
                Fault("stop", problem),
            )

    # -- asking ---------------------------------------------------------------------------------

    def fault(self, error: BaseException) -> Fault:
        """Tell what an exception means, without the key.

        Raises:
            BaseException: `error` itself, where no server or line can have caused it.
        """
        found = fault_of(error)
        said = self.key.redactor.said(found.sentence)
        return Fault(found.remedy, said, found.seconds, status=found.status, broken=found.broken)

    def _ask(self, what: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except BackendError:
            raise
        except Exception as error:
            fault = self.fault(error)
            raise service_error(f"{what}: {fault.sentence}", fault) from None  # a cause could show the key

    async def open(self, what: str, ask: Callable[[], Awaitable[T]], read: Callable[[T], T] = _as_it_is) -> T:
        """Call something of the SDK that blocks before it returns a future, and wait for that.

        Raises:
            ServiceError: it failed, or the server stayed away; the sentence begins with `what`.
        """
        try:
            future = await asyncio.to_thread(ask)
        except BackendError:
            raise
        except Exception as error:
            fault = self.fault(error)
            raise service_error(f"{what}: {fault.sentence}", fault) from None
        return await self.result(what, future, read)

    async def result(self, what: str, future: Awaitable[Any], read: Callable[[Any], T]) -> T:
        """Wait for a future of the SDK, for as long as there is a server that may answer it, and read the answer.

        The SDK itself would ask a server that is gone for ever. Whatever `read` raises, the answer is to blame.

        Raises:
            ServiceError: it failed, or the server stayed away for `patience` seconds.
        """
        task = asyncio.ensure_future(_awaited(future))
        away_since: float | None = None
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=PROBE_SECONDS)
                if done:
                    return read(task.result())
                problem = await asyncio.to_thread(self._absent_lately)
                if problem is None:
                    away_since = None
                else:
                    away_since = away_since or time.monotonic()
                    self._too_long(what, problem, away_since)
        except (ServiceError, asyncio.CancelledError):
            raise
        except Exception as error:
            fault = self.fault(error)
            raise service_error(f"{what}: {fault.sentence}", fault) from None
        finally:
            task.cancel()

    # -- models, asked for without an event loop ------------------------------------------------

    def models(self) -> dict[str, Offered]:
        """The models that the server offers, by name; asked once.

        Raises:
            ServiceError: the server is not there, or refuses the key.
        """
        if self._models is None:
            rest = self.rest()
            self._models = self._ask(
                self.options.base_url, lambda: offered(rest.get_server_capabilities().result(timeout=4 * LOOK_SECONDS))
            )
        return self._models

    def model(self, name: str) -> Offered:
        """A model that the server offers.

        Raises:
            ServiceError: the server is not there, or refuses the key.
            BackendError: it does not offer the model.
        """
        models = self.models()
        if name in models:
            return models[name]
        shown = self.key.redactor.said
        near = difflib.get_close_matches(name, models, n=1)
        listed = ", ".join(shown(one, 80) for one in sorted(models)[:5])
        some = f"did you mean '{shown(near[0], 80)}'?" if near else f"it has {listed or 'none'}"
        raise BackendError(f"the server at {self.options.base_url} does not offer model '{name}': {some}")


def keep_within_bounds(address: str) -> None:
    """Make the SDK keep every request to a deadline and a size: it has no option for its transport.

    A class is exchanged in version 0.38, which is the one that the extra installs.
    """
    import httpx
    from tinker import _base_client as sdk
    from tinker._constants import DEFAULT_CONNECTION_LIMITS

    if getattr(sdk.AsyncHttpxClientWrapper, "bounded", False):
        return

    class Bounded(sdk.AsyncHttpxClientWrapper):
        bounded = True

        def __init__(self, **options: Any) -> None:
            # The SDK's other transport (pyqwest) would be past all bounds.
            options["transport"] = bounded_transport(
                httpx, str(options.get("base_url") or address), ANSWER_SECONDS, http2=True,
                limits=DEFAULT_CONNECTION_LIMITS,
            )  # fmt: skip
            super().__init__(**options)

    sdk.AsyncHttpxClientWrapper = Bounded  # type: ignore[misc]


async def closed(session: ServiceClient, ended: Literal["success", "errored", "interrupted"]) -> None:
    """End a session, so that the server forgets what it holds for it; one that nobody can end ends by itself."""

    async def close() -> None:
        await session.close(ended)

    with suppress(Exception):
        await asyncio.wait_for(close(), _GOODBYE_SECONDS)


async def _awaited(future: Awaitable[T]) -> T:
    return await future
