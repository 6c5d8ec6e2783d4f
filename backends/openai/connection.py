"""The connection: one client of an OpenAI-style server, with its key, its faults and its list of models."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from windowshift.backends.openai.faults import BrokenAnswerError, Fault, ServiceError, fault_of
from windowshift.backends.openai.key import Key, find_key
from windowshift.backends.openai.options import OpenAIOptions
from windowshift.core.contract.errors import BackendError, MissingExtraError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
OWNER = "windowshift"  # what `windowshift serve` calls itself in its list of models
_LOOK_TIMEOUT = 15.0


class Connection:
    """What backend `openai` needs of a server. The client is made at the first use.

    Args:
        options: where the server is and which key it takes.
    """

    def __init__(self, options: OpenAIOptions) -> None:
        self.options = options
        self._key: Key | None = None
        self._client: AsyncOpenAI | None = None
        self._models: dict[str, Mapping[str, Any]] | None = None

    @property
    def key(self) -> Key:
        """The key.

        Raises:
            BackendError: there is none.
        """
        if self._key is None:
            self._key = find_key(self.options.key_env)
        return self._key

    @property
    def client(self) -> AsyncOpenAI:
        """The SDK's client. It repeats nothing by itself: what is repeated is decided here, and counted.

        Raises:
            BackendError: there is no key, or the SDK is not installed.
        """
        if self._client is None:
            try:
                import httpx2
                from openai import AsyncOpenAI
            except ModuleNotFoundError as error:
                raise MissingExtraError("backend 'openai'", "openai", error.name or "openai") from error
            room = self.options.concurrency + 16
            timeout = httpx2.Timeout(self.options.timeout, connect=min(20.0, self.options.timeout))
            self._client = AsyncOpenAI(
                api_key=self.key.value,
                base_url=self.options.base_url,
                max_retries=0,
                timeout=timeout,
                http_client=httpx2.AsyncClient(
                    timeout=timeout,
                    follow_redirects=False,  # a redirect elsewhere must not take the key along
                    limits=httpx2.Limits(max_connections=room, max_keepalive_connections=room),
                ),
            )
        return self._client

    def fault(self, error: Exception) -> Fault:
        """Tell what an exception means, without the key.

        Raises:
            Exception: `error` itself, where no server or line can have caused it.
        """
        found = fault_of(error)
        sentence = self.key.redact(found.sentence)
        return Fault(found.remedy, sentence, found.seconds, found.maybe_done, found.status, found.code, found.param)

    async def call(self, what: str, ask: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Ask the server once.

        Raises:
            ServiceError: it failed; the sentence begins with `what`.
        """
        try:
            return await ask(self.client)
        except BackendError:
            raise
        except Exception as error:
            fault = self.fault(error)
            raise ServiceError(f"{what}: {fault.sentence}", fault) from None  # a cause could show the key

    # -- models, asked for without an event loop ------------------------------------------------

    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """The server's models by name, with whatever it says of them; asked once.

        Raises:
            ServiceError: the server is not there, or refuses the key.
        """
        if self._models is None:
            found = self._get("/models")
            listed = found.get("data") if isinstance(found, Mapping) else None
            if not isinstance(listed, list):
                raise self._broken("its list of models has no 'data'")
            self._models = {
                str(one["id"]): one for one in listed if isinstance(one, Mapping) and isinstance(one.get("id"), str)
            }
        return self._models

    def is_own(self, name: str) -> bool:
        """Whether `windowshift serve` serves a model.

        Raises:
            BackendError: as `model`.
        """
        return self.model(name).get("owned_by") == OWNER

    def model(self, name: str) -> Mapping[str, Any]:
        """What the server says of one model.

        Raises:
            ServiceError: the server is not there, or refuses the key.
            BackendError: it has no such model.
        """
        from urllib.parse import quote

        models = self.models()
        if name in models:
            return models[name]
        try:
            found = self._get(f"/models/{quote(name, safe='')}")  # lists leave some out
            if isinstance(found, Mapping) and found.get("id") == name:
                return found
        except ServiceError as error:
            if error.fault.remedy != "refused":
                raise
        if self.options.unlisted:
            return {}
        near = difflib.get_close_matches(name, models, n=1)
        some = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(models)[:5]) or 'none'}"
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
            self._get(path)
        except ServiceError as error:
            if error.fault.status in (404, 405, 501):
                return False
            if error.fault.remedy != "refused":
                raise
        return True

    def _get(self, path: str) -> Any:
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise MissingExtraError("backend 'openai'", "openai", error.name or "httpx2") from error
        import openai

        with httpx2.Client(timeout=min(_LOOK_TIMEOUT, self.options.timeout)) as client:
            try:
                response = client.get(
                    f"{self.options.base_url}{path}", headers={"Authorization": f"Bearer {self.key.value}"}
                )
                if response.status_code >= 300:
                    body: object = None
                    if "json" in response.headers.get("content-type", ""):
                        body = response.json()
                    message = f"status {response.status_code}"
                    raise openai.APIStatusError(message, response=response, body=body)
                return response.json()
            except Exception as error:
                fault = self.fault(error)
                raise ServiceError(f"{self.options.base_url}: {fault.sentence}", fault) from None

    def _broken(self, reason: str) -> ServiceError:
        fault = fault_of(BrokenAnswerError(reason))
        return ServiceError(f"{self.options.base_url}: {fault.sentence}", fault)

    async def aclose(self) -> None:
        """Close the client's connections; the next use makes a new one."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()
