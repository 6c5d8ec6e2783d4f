"""The connection: one client of an OpenAI-style server, with its key, its faults and its list of models."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from windowshift.backends.openai.faults import fault_of
from windowshift.backends.openai.options import OpenAIOptions
from windowshift.backends.openai.said import Listed, ModelEntry
from windowshift.backends.shared.bounded import at_once, bounded_transport
from windowshift.backends.shared.faults import BrokenAnswerError, Fault, ServiceError, service_error
from windowshift.backends.shared.key import ApiKey, find_key
from windowshift.backends.shared.said import Said, load_json, read
from windowshift.core.contract.errors import BackendError, MissingExtraError
from windowshift.core.contract.redaction import Redactor

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import AsyncOpenAI
    from openai._types import RequestOptions

T = TypeVar("T")
M = TypeVar("M", bound=Said)
OWNER = "windowshift"  # what `windowshift serve` calls itself in its list of models
MOST_PAGES = 2000  # of 100 entries: a list that goes on has no end
_LOOK_TIMEOUT = 15.0
_CONNECT_TIMEOUT = 20.0


class OpenAIConnection:
    """What backend `openai` needs of a server. The client is made at the first use.

    Args:
        options: where the server is and which key it takes.
    """

    def __init__(self, options: OpenAIOptions) -> None:
        self.options = options
        self._key: ApiKey | None = None
        self._client: AsyncOpenAI | None = None
        self._models: dict[str, ModelEntry] | None = None

    @property
    def key(self) -> ApiKey:
        """The key.

        Raises:
            BackendError: there is none.
        """
        if self._key is None:
            self._key = find_key(self.options.key_env)
        return self._key

    @property
    def redactor(self) -> Redactor:
        """What takes the key out of all that the server says.

        Raises:
            BackendError: there is no key.
        """
        return self.key.redactor

    @property
    def client(self) -> AsyncOpenAI:
        """The SDK's client. It repeats nothing by itself: what is repeated is decided here, and counted.

        Raises:
            BackendError: there is no key, or the SDK is not installed.
        """
        if self._client is None:
            self._client = self._made(self.options.timeout)
        return self._client

    def _made(self, seconds: float) -> AsyncOpenAI:
        try:
            import httpx2
            from openai import AsyncOpenAI
        except ModuleNotFoundError as error:
            raise MissingExtraError("backend 'openai'", "openai", error.name or "openai") from error
        room = self.options.concurrency + 16
        timeout = httpx2.Timeout(seconds, connect=min(_CONNECT_TIMEOUT, seconds))
        limits = httpx2.Limits(max_connections=room, max_keepalive_connections=room)
        return AsyncOpenAI(
            api_key=self.key.value,
            base_url=self.options.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=httpx2.AsyncClient(
                timeout=timeout,
                follow_redirects=False,  # a redirect elsewhere must not take the key along
                transport=bounded_transport(httpx2, self.options.base_url, seconds, limits=limits),
            ),
        )

    def fault(self, error: Exception) -> Fault:
        """Tell what an exception means that came of asking the server; nothing in it shows the key."""
        found, redactor = fault_of(error), self.redactor
        return replace(
            found,
            sentence=redactor.said(found.sentence),
            code=None if found.code is None else redactor.said(found.code, 80),
            param=None if found.param is None else redactor.said(found.param, 80),
        )

    async def call(self, what: str, ask: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Ask the server once.

        Args:
            what: how the sentence of an error begins.
            ask: sends the request and reads the answer, and does nothing else: what it raises is the server's fault.

        Raises:
            ServiceError: it failed; the sentence begins with `what`.
        """
        client = self.client
        try:
            return await ask(client)
        except BackendError:
            raise
        except Exception as error:
            fault = self.fault(error)
            raise service_error(f"{what}: {fault.sentence}", fault) from None  # a cause could show the key

    # -- requests, from within `call` -----------------------------------------------------------

    async def send(
        self,
        client: AsyncOpenAI,
        method: Literal["GET", "POST"],
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request through the SDK, and return the answer as it came, for `said`.

        Raises:
            Exception: whatever the SDK raises.
        """
        import httpx2

        options: RequestOptions = {}
        if params is not None:
            options["params"] = params
        if headers is not None:
            options["headers"] = headers
        if method == "GET":
            return await client.get(path, cast_to=httpx2.Response, options=options)
        return await client.post(path, cast_to=httpx2.Response, body=body, options=options)

    async def said(self, model: type[M], client: AsyncOpenAI, path: str, **params: Any) -> M:
        """Ask for something that is described by `model`.

        Raises:
            BrokenAnswerError: the answer is none; and whatever the SDK raises.
        """
        return self.read(model, await self.send(client, "GET", path, params=params or None))

    def read(self, model: type[M], response: Response) -> M:
        """Read an answer.

        Raises:
            BrokenAnswerError: it is not what `model` describes, or repeats the key.
        """
        found = read(model, load_json(response.content))
        found.refuse_key(self.redactor)
        return found

    async def listed(self, model: type[M], client: AsyncOpenAI, path: str, **params: Any) -> AsyncIterator[M]:
        """The entries of a list, page after page.

        Raises:
            BrokenAnswerError: an entry is none, or the list begins again, or does not end.
        """
        after: str | None = None
        seen: set[str] = set()
        for _ in range(MOST_PAGES):
            cursor = {} if after is None else {"after": after}
            page = await self.said(Listed, client, path, **params, **cursor)
            for one in page.data:
                found = read(model, one)
                found.refuse_key(self.redactor)
                yield found
            if page.has_more is False or not page.data:
                return
            last = page.data[-1].get("id") if isinstance(page.data[-1], dict) else None
            if not isinstance(last, str):
                return  # nothing that a next page could begin after
            if last in seen:
                if page.has_more is None:
                    return  # a server without pages gives its whole list each time
                raise BrokenAnswerError("its list begins again, and never ends")
            seen.add(last)
            after = last
        raise BrokenAnswerError(f"its list has more than {MOST_PAGES} pages, and does not end")

    # -- models, asked for without an event loop ------------------------------------------------

    def models(self) -> Mapping[str, ModelEntry]:
        """The server's models by name; asked once. An entry that is none, or repeats the key, is left out.

        Raises:
            ServiceError: the server is not there, or refuses the key.
        """
        if self._models is None:
            found = self._get(Listed, "/models")
            models: dict[str, ModelEntry] = {}
            for one in found.data:
                try:
                    entry = read(ModelEntry, one)
                    entry.refuse_key(self.redactor)
                except BrokenAnswerError:
                    continue
                models[entry.id] = entry
            self._models = models
        return self._models

    def is_own(self, name: str) -> bool:
        """Whether `windowshift serve` serves a model.

        Raises:
            BackendError: as `model`.
        """
        return self.model(name).owned_by == OWNER

    def model(self, name: str) -> ModelEntry:
        """What the server says of one model.

        Raises:
            ServiceError: the server is not there, or refuses the key.
            BackendError: it has no such model.
        """
        models = self.models()
        if name in models:
            return models[name]
        try:
            found = self._get(ModelEntry, f"/models/{quote(name, safe='')}")  # lists leave some out
            if found.id == name:
                return found
        except ServiceError as error:
            if error.fault.remedy != "refused" and not error.fault.broken:
                raise
        if self.options.unlisted:
            return ModelEntry(id=name)
        shown = self.redactor.said
        near = difflib.get_close_matches(name, models, n=1)
        listed = ", ".join(shown(one, 80) for one in sorted(models)[:5])
        some = f"did you mean '{shown(near[0], 80)}'?" if near else f"it has {listed or 'none'}"
        raise BackendError(
            f"the server at {self.options.base_url} has no model '{name}': {some} "
            "(backend_options: {unlisted: true} takes it all the same)"
        )

    def speaks(self, path: str) -> bool:
        """Whether the server has an address; only a 404 or 405 says that it does not.

        Raises:
            ServiceError: the server is not there, or refuses the key.
        """
        try:
            self._get(None, path)
        except ServiceError as error:
            if error.fault.status in (404, 405, 501):
                return False
            if error.fault.remedy != "refused":
                raise
        return True

    def _get(self, model: type[M] | None, path: str) -> M:
        """Ask for something and wait for it; with no model, only whether it is there."""
        seconds = min(_LOOK_TIMEOUT, self.options.timeout)

        async def ask() -> M:
            client = self._made(seconds)  # the shared one belongs to another event loop
            try:
                response = await self.send(client, "GET", path)
                return self.read(model, response) if model is not None else None  # type: ignore[return-value]
            finally:
                await client.close()

        try:
            return at_once(ask)
        except BackendError:
            raise
        except Exception as error:
            fault = self.fault(error)
            raise service_error(f"{self.options.base_url}: {fault.sentence}", fault) from None

    async def aclose(self) -> None:
        """Close the client's connections; the next use makes a new one."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()
