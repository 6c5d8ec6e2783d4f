"""The actor that a station is under Ray: started on a node by the driver, asked by it again and again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from windowshift.backends.local.cluster.freight import StationMessage
from windowshift.backends.local.cluster.parcels import Carrier, Dropbox, Enclosed
from windowshift.backends.local.cluster.station import Station
from windowshift.core.contract.terminal import guard

WAIT_SECONDS = 5.0
"""How long an answer may wait for something to say."""
SILENCE_SECONDS = 120.0
"""A driver that did not ask for so long is taken to be gone: nobody reads what is computed."""


class ObjectStore:
    """Bytes in Ray's object store: put there once by the driver, fetched by whoever needs them."""

    def give(self, data: bytes, digest: str) -> Any:  # noqa: ARG002  # a folder names it by that
        """As `Carrier.give`."""
        import ray

        return ray.put(data)

    def take(self, content: Any) -> bytes:
        """As `Carrier.take`."""
        import ray

        return bytes(ray.get(content))


def carriers(url: str | None) -> tuple[Carrier, Carrier]:
    """To stations, and from them: a folder that all see, or Ray's object store."""
    if url is not None:
        dropbox = Dropbox(url)
        return dropbox, dropbox
    return ObjectStore(), Enclosed()


class RayStation:
    """A station as an actor.

    Args:
        options: those of backend `local` there.
        url: where artifacts go through; None: Ray's object store.
    """

    def __init__(self, options: Mapping[str, Any], url: str | None) -> None:
        self._options, self._url = options, url
        self._station: Station | None = None
        self._asked = time.monotonic()

    async def put(self, message: Any) -> None:
        """As `Station.put`."""
        self._begun().put(message)

    async def said(self, known: int) -> list[tuple[int, StationMessage]]:
        """As `Station.said`."""
        self._asked = time.monotonic()
        return await self._begun().said(known, WAIT_SECONDS)

    def _begun(self) -> Station:
        if self._station is None:  # within the actor's event loop
            guard()
            self._station = Station(self._options, *carriers(self._url))
            self._watch()
        return self._station

    def _watch(self) -> None:
        if time.monotonic() - self._asked > SILENCE_SECONDS:
            os._exit(0)
        asyncio.get_running_loop().call_later(SILENCE_SECONDS / 4, self._watch)
