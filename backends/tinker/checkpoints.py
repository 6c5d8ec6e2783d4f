"""Checkpoints at the service: listed, fetched and deleted, by run and name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from windowshift.backends.shared.bounded import bounded_transport
from windowshift.backends.shared.faults import BrokenAnswerError, Fault, ServiceError
from windowshift.backends.tinker import said
from windowshift.backends.tinker.connection import TinkerConnection

if TYPE_CHECKING:
    from tinker import RestClient

log = logging.getLogger("windowshift.tinker")

FETCH_SECONDS = 300.0  # for a file as a whole, and more for what it carries
MOST_FILE_BYTES = 32 << 30
_LOOK_AGAIN = 0.3


class SavedCheckpoints:
    """What runs have saved at a server.

    Args:
        connection: the server.
    """

    def __init__(self, connection: TinkerConnection) -> None:
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
            return await self._connection.result(
                f"the checkpoints of {run}", rest.list_checkpoints(run), said.checkpoints
            )
        except ServiceError as error:
            if error.fault.status == 404:
                return {}
            raise

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

    async def fetch(self, path: str, folder: Path) -> set[str]:
        """Put the files of an exported PEFT adapter into a folder; the names of those that there are.

        Raises:
            ServiceError: the server has no such export, or stayed away.
            OSError: they cannot be written.
        """
        rest = await self._rest()
        what = f"fetching {path}"
        found = await self._connection.result(what, rest.get_external_weights_urls(path), said.addresses)
        for name, address in found.items():  # names of ours: the server's lead wherever it likes
            await self._get(f"{what}: {name}", address, folder / name)
        return set(found)

    async def _get(self, what: str, address: str, file: Path) -> None:
        import httpx

        transport = bounded_transport(httpx, address, FETCH_SECONDS, most=MOST_FILE_BYTES)
        with file.open("wb") as out:  # a full disk is no fault of the server's
            try:
                async with (
                    httpx.AsyncClient(transport=transport, follow_redirects=True) as client,
                    client.stream("GET", address) as answer,
                ):
                    if answer.status_code != 200:
                        raise BrokenAnswerError(f"status {answer.status_code}")
                    async for piece in answer.aiter_bytes():
                        out.write(piece)
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, BrokenAnswerError, ValueError) as error:
                # Without the address: it is signed.
                reason = str(error) if isinstance(error, BrokenAnswerError) else type(error).__name__
                raise ServiceError(f"{what}: {reason}", Fault("again", reason)) from None

    async def delete(self, path: str) -> None:
        """Delete a checkpoint; one that is gone already is no fault.

        Raises:
            ServiceError: the server refused, or stayed away.
        """
        rest = await self._rest()
        try:
            await self._connection.result(
                f"deleting {path}", rest.delete_checkpoint_from_tinker_path(path), lambda _: None
            )
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
