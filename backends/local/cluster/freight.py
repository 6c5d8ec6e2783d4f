"""What goes between the driver and a station: orders with the files that they read, and files that were made."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windowshift.backends.local.cluster.installation import difference, installation
from windowshift.backends.local.cluster.named_files import named_files, output_of
from windowshift.backends.local.cluster.parcels import Carrier, Parcel, packed, unpack
from windowshift.backends.local.messages import Ended, Order, Ready, Unfit, WorkerMessage
from windowshift.backends.local.model_folder import identify
from windowshift.core.contract.errors import BackendError

MOST_KEPT = 64
"""Adapters and vectors that are kept ready to go out, and that a station keeps."""
DATASET = "dataset.jsonl"
"""In the folder of a training, and not read by it: the examples are in the order."""

BaseModel = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Shipment:
    """An order on its way: what it reads by the driver's paths, what its jobs left before, and what models must be."""

    order: Order
    files: Mapping[str, Parcel]
    left: Mapping[str, Parcel]
    fingerprints: Mapping[BaseModel, str]


@dataclass(frozen=True, slots=True)
class Hello:
    """A station has started: the machine that it is on, and what is installed there."""

    where: str
    installation: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a job of an order wrote since the last time."""

    number: int
    key: str
    parcel: Parcel


StationMessage = WorkerMessage | Hello | Delivered
"""What comes from a station."""


class Shipper:
    """Packs orders; the same adapter once, however many orders read it.

    Args:
        carrier: takes what goes out.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._kept: OrderedDict[tuple[str, int], Parcel] = OrderedDict()
        self._fingerprints: dict[BaseModel, str] = {}

    def shipment(self, order: Order) -> Shipment:
        """An order with all that it needs.

        Raises:
            BackendError: a model cannot be found here.
            OSError: a file cannot be read.
        """
        left = {}
        for item in order.items:
            output = output_of(item)
            if output is not None and output.is_dir():
                names = [one.name for one in output.iterdir() if one.name != DATASET]
                left[item.key] = packed(output, self._carrier, names)
        files = {path: self._parcel(path) for path in named_files(order.items)}
        models = {(item.model.base, item.model.revision) for item in order.items}
        return Shipment(order, files, left, {model: self._fingerprint(model) for model in models})

    def _parcel(self, path: str) -> Parcel:
        place = Path(path)
        newest = max((one.stat().st_mtime_ns for one in [place, *place.rglob("*")]), default=0)
        key = (path, newest)
        if key not in self._kept:
            self._kept[key] = packed(place, self._carrier)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _fingerprint(self, model: BaseModel) -> str:
        if model not in self._fingerprints:
            self._fingerprints[model] = identify(*model).fingerprint
        return self._fingerprints[model]


class StationPost:
    """The driver's end of a station: a post that hands on what is said, and writes what was made.

    Args:
        where: the machine, as far as it is known.
        carrier: takes what comes in.
        ship: sends a message to the station, at some time; OSError where it ended.
        stop: ends the station; how it ended.
    """

    def __init__(self, where: str, carrier: Carrier, ship: Callable[[Any], None], stop: Callable[[], str]) -> None:
        self.where, self.ready, self.lost = where, False, False
        self._carrier, self._ship, self._stop = carrier, ship, stop
        self._take: Callable[[WorkerMessage | None], None] = lambda _: None
        self._outputs: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._closed = False

    def listen(self, take: Callable[[WorkerMessage | None], None]) -> None:
        """As `Post.listen`."""
        self._take = take

    def send(self, message: Any) -> None:
        """As `Post.send`."""
        if isinstance(message, Order):
            for item in message.items:
                output = output_of(item)
                if output is not None:
                    self._outputs[item.key] = output
        self._ship(message)

    def close(self) -> None:
        """As `Post.close`: whatever the station still sends is not written."""
        with self._lock:
            self._closed = True

    def end(self) -> str:
        """As `Post.end`."""
        return self._stop()

    def heard(self, got: StationMessage | None) -> None:
        """Take what the station said; None: it ended."""
        with self._lock:
            if self._closed:
                return
            if isinstance(got, Hello):
                self.where = got.where
                other = difference(installation(), got.installation)
                got = Ready(self.where) if other is None else Unfit(f"{other}: install the same there")
            elif isinstance(got, Delivered):
                try:
                    self._write(got)
                except (OSError, BackendError) as error:
                    self._take(Ended(got.number, f"what {self.where} made cannot be kept: {error}; run again to go on"))
                return
            self._take(got)

    def _write(self, got: Delivered) -> None:
        output = self._outputs[got.key]
        single = got.parcel.single
        if single and [one.name for one in got.parcel.files] != [output.name]:
            raise BackendError(f"a worker sent another file than '{output.name}'")
        unpack(got.parcel, output.parent if single else output, self._carrier)


def unshipped(order: Order, error: Exception) -> Ended:
    """The end of an order that could not be sent."""
    return Ended(order.number, f"a worker cannot be given its work: {error}; run again to go on")


def placed(events: list[Any], here: str, there: str) -> list[Any]:
    """Events with the paths of a station's folder put in terms of the driver's."""
    return [
        replace(one, adapter=there + one.adapter.removeprefix(here)) if hasattr(one, "adapter") else one
        for one in events
    ]
