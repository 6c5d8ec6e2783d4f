"""A worker on another machine: it works in a folder of its own, and sends back what it made.

What carries its words (Ray, a socket) is somebody else's: `put` is how it is told, `said` how it is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from windowshift.backends.local.cluster.freight import (
    MOST_KEPT,
    BaseModel,
    Delivered,
    Hello,
    Shipment,
    StationMessage,
    placed,
)
from windowshift.backends.local.cluster.installation import installation
from windowshift.backends.local.cluster.named_files import output_of, renamed
from windowshift.backends.local.cluster.parcels import Carrier, Parcel, packed, unpack
from windowshift.backends.local.messages import Cancel, Ended, GiveUp, Unfit, WorkerMessage, Yielded
from windowshift.backends.local.model_folder import identify
from windowshift.backends.local.worker import Worker
from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.contract.training import TrainMessage
from windowshift.core.contract.vector_job import VectorMade

_SCRATCH = "windowshift-worker-"
MOST_AT_ONCE = 256
"""Messages that one answer to `said` holds; those with files go one by one."""

_Stamps = dict[str, tuple[tuple[str, int, int], ...]]
"""Of a job's folder: the files below each top-level name, with size and time."""


class Station:
    """Takes shipments, and says what comes of them. Used inside one event loop.

    Args:
        options: those of backend `local` there.
        incoming: takes what comes in.
        outgoing: takes what goes out.
    """

    def __init__(self, options: Mapping[str, Any], incoming: Carrier, outgoing: Carrier) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._worker = Worker(options, self._tell)
        self._scratch = _scratch_folder()
        self._orders: asyncio.Queue[Shipment | Cancel | GiveUp] = asyncio.Queue()
        self._told: asyncio.Queue[WorkerMessage] = asyncio.Queue()
        self._said: list[tuple[int, StationMessage]] = []
        self._count = 0
        self._news = asyncio.Event()
        self._outputs: dict[int, dict[str, tuple[Path, Path]]] = {}
        self._sent: dict[str, _Stamps] = {}
        self._fingerprints: dict[BaseModel, str] = {}
        self._say(Hello(socket.gethostname(), installation()))
        self._tasks = [asyncio.create_task(self._take_orders()), asyncio.create_task(self._send_on())]

    def put(self, message: Shipment | Cancel | GiveUp) -> None:
        """Do what a message says, after those before it."""
        self._orders.put_nowait(message)

    async def said(self, known: int, seconds: float) -> list[tuple[int, StationMessage]]:
        """What was said after the message of the number `known`, numbered; waits so long for the first of them."""
        self._said = [one for one in self._said if one[0] > known]
        if not self._said:
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), seconds)
            except TimeoutError:
                return []
        some = self._said[:MOST_AT_ONCE]
        heavy = next((at for at, one in enumerate(some) if isinstance(one[1], Delivered)), len(some))
        return some[: max(heavy, 1)]

    def _say(self, message: StationMessage) -> None:
        self._count += 1
        self._said.append((self._count, message))
        self._news.set()

    def _tell(self, answer: WorkerMessage) -> None:
        self._told.put_nowait(answer)

    # -- what comes in ----------------------------------------------------------------------------------

    async def _take_orders(self) -> None:
        while True:
            message = await self._orders.get()
            if not isinstance(message, Shipment):
                self._worker.take(message)
                continue
            number = message.order.number
            try:
                reason = await asyncio.to_thread(self._unfit, message.fingerprints)
                if reason is not None:
                    self._say(Unfit(reason))
                    continue
                self._worker.take(await asyncio.to_thread(self._unloaded, message))
            except (OSError, WindowshiftError) as error:
                self._say(Ended(number, f"{socket.gethostname()} cannot begin: {error}"))

    def _unfit(self, fingerprints: Mapping[BaseModel, str]) -> str | None:
        """Why a model is not the driver's; None where all are."""
        for model, wanted in fingerprints.items():
            if model not in self._fingerprints:
                try:
                    self._fingerprints[model] = identify(*model).fingerprint
                except WindowshiftError as error:
                    return str(error)
            if self._fingerprints[model] != wanted:
                return f"'{model[0]}' is another model there than on the driver's machine: its fingerprint differs"
        return None

    def _unloaded(self, shipment: Shipment) -> Any:
        """The order in terms of this machine, with its files in place."""
        order = shipment.order
        places = {path: str(self._placed(parcel)) for path, parcel in shipment.files.items()}
        items, outputs = [], {}
        for item in renamed(order.items, places.__getitem__):
            wanted = output_of(item)
            if wanted is not None:
                folder = self._scratch / "out" / hashlib.sha256(item.key.encode()).hexdigest()[:16]
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                if item.key in shipment.left:
                    unpack(shipment.left[item.key], folder, self._incoming)
                here = folder / wanted.name if hasattr(item, "source") else folder  # a vector is one file
                outputs[item.key] = (here, wanted)
                self._sent[item.key] = _stamps(folder)
                item = replace(item, output=here)
            items.append(item)
        self._outputs[order.number] = outputs
        return type(order)(order.number, order.method, items)

    def _placed(self, parcel: Parcel) -> Path:
        """Where a parcel's content lies here; the least used ones go."""
        kept = self._scratch / "in"
        place = kept / parcel.digest
        if place.is_dir():
            os.utime(place)
        else:
            shutil.rmtree(aside := kept / f"{parcel.digest}.new", ignore_errors=True)
            unpack(parcel, aside, self._incoming)
            aside.rename(place)
            for old in sorted(kept.iterdir(), key=lambda one: one.stat().st_mtime)[: -2 * MOST_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        return place / parcel.files[0].name if parcel.single else place

    # -- what goes out ----------------------------------------------------------------------------------

    async def _send_on(self) -> None:
        """Say what the worker says, after the files that it speaks of."""
        while True:
            answer = await self._told.get()
            number = answer.number if isinstance(answer, Yielded | Ended) else 0
            outputs = self._outputs.get(number, {})
            if isinstance(answer, Yielded) and outputs:
                for key in {item.key for item in answer.items if not isinstance(item, TrainMessage)}:
                    here, there = outputs[key]
                    made = any(isinstance(item, VectorMade) for item in answer.items)
                    parcel = await asyncio.to_thread(self._changed, key, here, made)
                    if parcel.files or parcel.gone:
                        self._say(Delivered(number, key, parcel))
                    answer = Yielded(number, placed(answer.items, str(here), str(there)))
            elif isinstance(answer, Yielded):
                answer = self._together(answer)
            if isinstance(answer, Ended):
                for key, (here, _) in self._outputs.pop(number, {}).items():
                    self._sent.pop(key, None)
                    shutil.rmtree(here.parent if here.suffix else here, ignore_errors=True)
            self._say(answer)

    def _together(self, answer: Yielded) -> Yielded:
        """With what else was yielded of the same stream meanwhile: one message for many completions."""
        items = list(answer.items)
        waiting: list[WorkerMessage] = []
        while not self._told.empty():
            waiting.append(self._told.get_nowait())
        rest: list[WorkerMessage] = []
        for one in waiting:
            if not rest and isinstance(one, Yielded) and one.number == answer.number:
                items += one.items
            else:
                rest.append(one)
        for one in rest:
            self._told.put_nowait(one)
        return Yielded(answer.number, items)

    def _changed(self, key: str, here: Path, made: bool) -> Parcel:
        """What a job wrote, or removed, since the last time."""
        if made:
            return packed(here, self._outgoing)
        before, now = self._sent.get(key, {}), _stamps(here)
        self._sent[key] = now
        changed = [name for name, stamp in now.items() if before.get(name) != stamp]
        parcel = packed(here, self._outgoing, changed)
        return Parcel(parcel.files, tuple(name for name in before if name not in now))


def _stamps(folder: Path) -> _Stamps:
    found: _Stamps = {}
    if not folder.is_dir():
        return found
    for top in sorted(folder.iterdir()):
        if ".partial" in top.name:
            continue
        some = []
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            try:
                stat = file.stat()
            except FileNotFoundError:  # gone meanwhile
                continue
            some.append((file.name, stat.st_size, stat.st_mtime_ns))
        if some:
            found[top.name] = tuple(some)
    return found


def _scratch_folder() -> Path:
    """An empty folder for this process; those of workers that are no more are removed."""
    root = Path(tempfile.gettempdir())
    for old in root.glob(f"{_SCRATCH}*"):
        number = old.name.removeprefix(_SCRATCH).split("-")[0]
        if number.isdigit() and not Path("/proc", number).exists() and Path("/proc").is_dir():
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
    (folder / "in").mkdir()
    return folder
