"""Checkpoints at the service: listed, fetched and deleted, by run and name."""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import TYPE_CHECKING

from windowshift.backends.shared.faults import Fault, ServiceError
from windowshift.backends.tinker.connection import Connection

if TYPE_CHECKING:
    from tinker import RestClient

log = logging.getLogger("windowshift.tinker")

_FETCH_SECONDS = 300.0
_LOOK_AGAIN = 0.3


class Checkpoints:
    """What runs have saved at a server.

    Args:
        connection: the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _rest(self) -> RestClient:
        return await asyncio.to_thread(self._connection.rest)

    async def list(self, run: str) -> dict[str, str]:
        """The paths of a run's checkpoints, by name; empty for a run that the server does not know.

        Raises:
            ServiceError: the server stayed away.
        """
        rest = await self._rest()
        try:
            found = await self._connection.result(f"the checkpoints of {run}", rest.list_checkpoints(run))
        except ServiceError as error:
            if error.fault.status == 404:
                return {}
            raise
        return {one.tinker_path.rsplit("/", 1)[-1]: one.tinker_path for one in found.checkpoints}

    async def find(self, run: str, name: str, asked_at: float) -> str | None:
        """The path of a checkpoint that nobody saw confirmed; None: it is not there, and not on its way.

        Raises:
            ServiceError: the server stayed away.
        """
        while True:
            path = (await self.list(run)).get(name)
            left = asked_at + self._connection.options.settle - time.time()
            if path is not None or left <= 0:
                return path
            await asyncio.sleep(min(_LOOK_AGAIN, left))

    async def fetch(self, path: str) -> dict[str, bytes]:
        """The files of exported weights, by name.

        Raises:
            ServiceError: the server has no such export, or stayed away.
        """
        rest = await self._rest()
        what = f"fetching {path}"
        signed = await self._connection.result(what, rest.get_external_weights_urls(path))
        found = {}
        for name, address in signed.urls.items():
            try:
                found[name] = await asyncio.to_thread(_get, address)
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                raise ServiceError(f"{what}: {name}: {reason}", Fault("again", str(reason))) from error
        return found

    async def delete(self, path: str) -> None:
        """Delete a checkpoint; one that is gone already is no fault.

        Raises:
            ServiceError: the server refused, or stayed away.
        """
        rest = await self._rest()
        try:
            await self._connection.result(f"deleting {path}", rest.delete_checkpoint_from_tinker_path(path))
        except ServiceError as error:
            if error.fault.status != 404:
                raise

    async def clear(self, runs: Collection[str], keep: Collection[str]) -> int:
        """Delete everything that these runs have saved, but for the paths in `keep`; how much that was.

        What cannot be deleted is left to its time to live, and told to the log.
        """
        gone = 0
        for run in runs:
            try:
                for path in (await self.list(run)).values():
                    if path not in keep:
                        await self.delete(path)
                        gone += 1
            except ServiceError as error:
                log.warning("%s; it is left to its time to live", error)
        return gone


def _get(address: str) -> bytes:
    if not address.startswith(("https://", "http://")):
        raise ValueError("the server named no web address")
    with urllib.request.urlopen(address, timeout=_FETCH_SECONDS) as answer:
        content: bytes = answer.read()
    return content
