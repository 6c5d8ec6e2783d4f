"""Workers on a Ray cluster: an actor for each share of a node, placed by the driver, which alone retries.

Ray starts actors, carries messages and tells of nodes. It repeats nothing (`max_restarts=0`, `max_task_retries=0`):
what a lost worker was at is dealt out anew by the crew, and what is done stands in the store, which nobody but the
driver writes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from windowshift.backends.local.cluster.freight import Shipper, StationPost, unshipped
from windowshift.backends.local.cluster.options import RaySection
from windowshift.backends.local.cluster.ray_station import RayStation, carriers
from windowshift.backends.local.messages import Order, Unfit
from windowshift.backends.local.post import Post
from windowshift.core.contract.backoff import Backoff
from windowshift.core.contract.errors import BackendError, MissingExtraError

log = logging.getLogger("windowshift.local")

_WAIT_SECONDS = 0.1
_REACH_SECONDS = 10.0
_NEWS_SECONDS = 5.0
_SIGNS_OF_LIFE_SECONDS = 30.0
_GUESSED = 16
"""Workers of a cluster that was not reached yet: first calls are cut for so many."""
_PUT_TRIES = 6
"""How often a message is tried while the object store is full."""


class _Held:
    """One actor: its post, its node, what was heard of it and the question that is open."""

    def __init__(self, actor: Any, post: StationPost, node: str) -> None:
        self.actor, self.post, self.node = actor, post, node
        self.known = 0
        self.asked: Any = None
        self.begun = False
        self.ended = False
        self.how = "it was ended"


class RayExecutor:
    """Gives out posts on the nodes of a cluster; more where nodes join, fewer where they go.

    Args:
        section: where the cluster is, and a worker's share of a node.
        workers: the most workers; 0 takes what there is room for.
        options: the options of backend `local` in a worker.
    """

    elastic = True
    station: ClassVar[type[RayStation]] = RayStation
    _users: ClassVar[int] = 0
    """Executors of this process that use the connection, which there is one of."""

    def __init__(self, section: RaySection, workers: int, options: Mapping[str, Any]) -> None:
        self._section, self._workers, self._options = section, workers, dict(options)
        self._opening = asyncio.Lock()
        self._opened = self._connected_here = False
        self._closing = threading.Event()
        self._held: list[_Held] = []
        self._refused: dict[str, str] = {}
        self._outgoing: queue.Queue[tuple[_Held, Any]] = queue.Queue()
        self._empty_since: float | None = None
        self._threads: list[threading.Thread] = []

    async def open(self) -> None:
        """As `Executor.open`: connects to the cluster.

        Raises:
            MissingExtraError: Ray is not installed.
            BackendError: there is no cluster.
        """
        async with self._opening:
            if not self._opened:
                await asyncio.to_thread(self._connect)
                self._opened = True

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise MissingExtraError("executor: ray", "ray", "ray") from None
        if not ray.is_initialized():
            try:
                _reached(self._section.address)
                ray.init(
                    address=self._section.address,
                    namespace="windowshift",
                    log_to_driver=False,
                    configure_logging=False,
                    include_dashboard=False if self._section.address == "local" else None,
                )
            except (OSError, RuntimeError, ValueError) as error:
                said = str(error).strip().splitlines()[0][:200]
                raise BackendError(
                    f"there is no Ray cluster at '{self._section.address}' ({said}): "
                    "start one with  ray start --head , or say  ray: {address: local}"
                ) from error
            self._connected_here = True
        RayExecutor._users += 1
        self._shipper = Shipper(carriers(self._section.artifacts)[0])
        self._actor = ray.remote(self.station)
        for work in (self._send, self._receive):
            thread = threading.Thread(target=work, name=f"windowshift-ray{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    @property
    def size(self) -> int:
        """As `Executor.size`."""
        if not self._opened:
            return self._workers or _GUESSED
        room = sum(self._room().values())
        return min(room, self._workers) if self._workers else room

    def _room(self) -> dict[str, int]:
        """How many workers each node that takes part has room for, by its id."""
        return {node: count for node, count in self._large_enough().items() if node not in self._refused}

    def _large_enough(self) -> dict[str, int]:
        """How many workers each node would have room for, where it has any."""
        share = {"CPU": self._section.cpus, "GPU": self._gpus()}
        found = {}
        for node in _nodes():
            if node["Alive"]:
                has = node["Resources"]
                count = int(min(has.get(kind, 0) / each + 1e-9 for kind, each in share.items() if each))
                if count:
                    found[node["NodeID"]] = count
        return found

    def _gpus(self) -> float:
        if self._section.gpus is not None:
            return self._section.gpus
        return 1.0 if any(node["Alive"] and node["Resources"].get("GPU") for node in _nodes()) else 0.0

    def hire(self, held: Sequence[Post]) -> list[Post]:
        """As `Executor.hire`; waits for room so long as the options say, then raises."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        room = self._room()
        most = self._workers or sum(room.values())
        found: list[Post] = []
        mine = [one for one in self._held if any(one.post is post for post in held)]
        for node, count in room.items():
            there = sum(one.node == node for one in mine)
            for _ in range(count - there):
                if len(held) + len(found) >= most:
                    break
                actor = self._actor.options(
                    num_cpus=self._section.cpus,
                    num_gpus=self._gpus(),
                    max_restarts=0,
                    max_task_retries=0,
                    max_concurrency=16,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                ).remote(self._options, self._section.artifacts)
                found.append(self._post(actor, node))
        if held or found:
            self._empty_since = None
        else:
            self._nobody({*self._large_enough()})
        return found

    def _nobody(self, nodes: set[str]) -> None:
        """Wait for nodes, and raise where all that are large enough were refused, or none came."""
        if nodes and nodes <= {*self._refused}:
            raise BackendError(f"no node of the Ray cluster takes part: {self._refused[min(nodes)]}")
        self._empty_since = self._empty_since or time.monotonic()
        if time.monotonic() - self._empty_since > self._section.patience:
            wanted = f"{self._section.cpus:g} CPUs and {self._gpus():g} GPUs"
            raise BackendError(
                f"no node of the Ray cluster had room for a worker ({wanted}) for {self._section.patience:g} seconds: "
                "add nodes, or lower  cpus  or  gpus  under  ray"
            )

    def _post(self, actor: Any, node: str) -> StationPost:
        held: _Held

        def ship(message: Any) -> None:
            if held.ended:
                raise OSError("the worker ended")
            self._outgoing.put((held, message))

        def stop() -> str:
            import ray

            held.ended = True
            if ray.is_initialized():
                ray.kill(held.actor, no_restart=True)
            if held in self._held:
                self._held.remove(held)
            return held.how

        post = StationPost(f"node {node[:8]}", carriers(self._section.artifacts)[1], ship, stop)
        held = _Held(actor, post, node)
        self._held.append(held)
        return post

    def refuse(self, post: Post, reason: str) -> None:
        """As `Executor.refuse`."""
        for held in self._held:
            if held.post is post:
                self._refused[held.node] = f"{post.where}: {reason}"

    async def aclose(self) -> None:
        """As `Executor.aclose`: the connection is closed where it was made here."""
        self._closing.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 10)
        if self._opened:
            self._opened = False
            RayExecutor._users -= 1
            if self._connected_here and RayExecutor._users == 0:
                import ray

                await asyncio.to_thread(ray.shutdown)

    # -- two threads --------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Send what is to be sent, in its order; wait where the object store is full."""
        from ray.exceptions import ObjectStoreFullError, OutOfDiskError

        while not self._closing.is_set():
            try:
                held, message = self._outgoing.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            backoff = Backoff(0.2, 10.0, _PUT_TRIES)
            while not held.ended and not self._closing.is_set():
                try:
                    held.actor.put.remote(self._shipper.shipment(message) if isinstance(message, Order) else message)
                except (ObjectStoreFullError, OutOfDiskError) as error:
                    pause = backoff.failed()
                    if not backoff.over:
                        log.warning("Ray's object store is full: it is tried again in %.1f s", pause)
                        self._closing.wait(pause)
                        continue
                    self._failed(held, message, error)
                except Exception as error:  # whatever a file or a model may raise: the thread goes on
                    self._failed(held, message, error)
                break

    def _failed(self, held: _Held, message: Any, error: Exception) -> None:
        if isinstance(message, Order):
            held.post.heard(unshipped(message, error))

    def _receive(self) -> None:
        """Keep one question open at every worker, and hand on the answers."""
        import ray

        while not self._closing.is_set():
            asked = {}
            for held in list(self._held):
                if held.ended:
                    continue
                if held.asked is None:
                    held.asked = held.actor.said.remote(held.known)
                asked[held.asked] = held
            if not asked:
                self._closing.wait(_WAIT_SECONDS)
                continue
            ready, _ = ray.wait(list(asked), num_returns=1, timeout=_WAIT_SECONDS)
            if ready:  # and whatever else is there by now
                ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0)
            for ref in ready:
                self._answered(asked[ref], ref)

    def _answered(self, held: _Held, ref: Any) -> None:
        import ray
        from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError

        held.asked = None
        try:
            said = ray.get(ref)
        except (ObjectStoreFullError, OutOfDiskError):
            log.warning("Ray's object store is full: %s is asked again", held.post.where)
            self._closing.wait(1.0)
            return
        except RayError as error:
            self._ended(held, error)
            return
        for number, message in said:
            held.begun = True
            if number > held.known:
                held.known = number
                held.post.heard(message)

    def _ended(self, held: _Held, error: Exception) -> None:
        """An actor is no more: with its node, of its work, or since it could not begin there."""
        if held.ended:
            return
        held.ended = True
        text = str(error).strip()
        held.how = _last_line(text)
        if not held.begun and ("creation task" in text or "import" in text.lower()):
            held.post.heard(Unfit(f"windowshift cannot begin there: {held.how}"))
            return
        # In a thread: what other workers say does not wait for Ray's news of this one's node.
        threading.Thread(target=self._tell_end, args=(held, error), daemon=True).start()

    def _tell_end(self, held: _Held, error: Exception) -> None:
        """Say that a worker ended, and whether with its node: Ray hears of the worker first."""
        from ray.exceptions import ActorUnavailableError

        # Where only the connection broke, Ray itself waits for signs of life of the node.
        broke = isinstance(error, ActorUnavailableError)
        until = time.monotonic() + (_SIGNS_OF_LIFE_SECONDS if broke else _NEWS_SECONDS)
        lost = "its node has died" in str(error)
        while not lost and time.monotonic() < until and not self._closing.wait(_WAIT_SECONDS):
            lost = self._gone(held.node)
        held.post.lost = lost
        held.post.heard(None)

    def _gone(self, node: str) -> bool:
        return node not in {one["NodeID"] for one in _nodes() if one["Alive"]}


def _reached(address: str) -> None:
    """See that somebody listens at HOST:PORT: Ray itself tries for minutes, and ends the process then.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()


def _nodes() -> list[dict[str, Any]]:
    """Ray's table of nodes."""
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray has types for some of it
    return found


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason is known")[:200]
