"""Answers within bounds: a deadline for the whole of a request, and a cap on what its body unpacks to."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from windowshift.backends.shared.faults import BrokenAnswerError

T = TypeVar("T")
MIB = 1 << 20
MOST_BYTES = 32 * MIB  # an answer in JSON, which takes many times its size once it is read
MOST_FILE_BYTES = 512 * MIB  # a file of answers, which is read line by line
BYTES_A_SECOND = 64 * 1024  # what even a slow line carries; a larger body has more time
ENCODINGS = "gzip, deflate"


class Deadline:
    """The time that a request has in all: `seconds`, and what it takes to carry the bytes that did come.

    A body that drips byte after byte adds nothing to speak of, and is over in time.
    """

    def __init__(self, seconds: float) -> None:
        self._begun, self._seconds, self._bytes = time.monotonic(), seconds, 0

    def carried(self, size: int) -> None:
        """So many bytes were sent or received."""
        self._bytes += size

    @property
    def left(self) -> float:
        """Seconds; below 0 once it is over."""
        return self._seconds + self._bytes / BYTES_A_SECOND - (time.monotonic() - self._begun)


class Unpacked:
    """Unpacks a body piece by piece, and stops where it grows larger than `most` bytes: a bomb is not unpacked first.

    Args:
        encoding: the header ``content-encoding``.
        most: bytes, unpacked.

    Raises:
        BrokenAnswerError: the encoding is none that was asked for.
    """

    def __init__(self, encoding: str, most: int) -> None:
        self._left, self._most = most, most
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise BrokenAnswerError("its body is packed in a way that was not asked for")
        self._packed = zlib.decompressobj(zlib.MAX_WBITS | 32) if name not in ("", "identity") else None

    def feed(self, data: bytes) -> bytes:
        """The next piece.

        Raises:
            BrokenAnswerError: the body is larger than allowed, or badly packed.
        """
        if self._packed is not None:
            try:
                data = self._packed.decompress(data, self._left + 1)
            except zlib.error:
                raise BrokenAnswerError("its body is badly packed") from None
        self._left -= len(data)
        if self._left < 0:
            raise BrokenAnswerError(f"its body is larger than {self._most / MIB:g} MiB")
        return data

    def end(self) -> None:
        """The body has ended.

        Raises:
            BrokenAnswerError: in its middle.
        """
        if self._packed is not None and not self._packed.eof and self._left != self._most:
            raise BrokenAnswerError("its body was cut short")


def proxy_of(address: str) -> str | None:
    """The proxy that the environment names for an address: a transport of one's own is not given it otherwise."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def bounded_transport(
    library: ModuleType, address: str, seconds: float, *, most: int | None = None, **options: Any
) -> Any:
    """An asynchronous transport of httpx or httpx2 that keeps every request to a deadline and a size.

    Args:
        library: httpx or httpx2, whichever the SDK in question is made of.
        address: where requests go.
        seconds: for a request as a whole, and more for what it carries.
        most: bytes that a body may unpack to; None: as many as an answer in JSON, or a file of answers, may have.
        options: those of the library's own transport.
    """

    class Body(library.AsyncByteStream):  # type: ignore[name-defined, misc]  # a class of whichever library it is
        def __init__(self, inner: Any, unpacked: Unpacked, deadline: Deadline) -> None:
            self._inner, self._unpacked, self._deadline = inner, unpacked, deadline

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = aiter(self._inner)
            while True:
                try:
                    async with asyncio.timeout(max(0.0, self._deadline.left)):
                        piece = await anext(pieces, None)
                except TimeoutError:
                    raise library.ReadTimeout("the answer did not end in time") from None
                if piece is None:
                    break
                self._deadline.carried(len(piece))
                yield self._unpacked.feed(piece)
            self._unpacked.end()

        async def aclose(self) -> None:
            await self._inner.aclose()

    class Transport(library.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self._inner = library.AsyncHTTPTransport(proxy=proxy_of(address), **options)

        async def handle_async_request(self, request: Any) -> Any:
            request.headers["accept-encoding"] = ENCODINGS
            deadline = Deadline(seconds)
            announced = request.headers.get("content-length", "0")
            deadline.carried(int(announced) if announced.isdigit() else 0)
            try:
                async with asyncio.timeout(deadline.left):
                    response = await self._inner.handle_async_request(request)
            except TimeoutError:
                raise library.ReadTimeout("no answer came in time", request=request) from None
            usual = MOST_FILE_BYTES if request.url.path.endswith("/content") else MOST_BYTES
            try:
                unpacked = Unpacked(response.headers.pop("content-encoding", ""), usual if most is None else most)
            except BrokenAnswerError:
                await response.aclose()
                raise
            response.stream = Body(response.stream, unpacked, deadline)
            return response

        async def aclose(self) -> None:
            await self._inner.aclose()

    return Transport()


def at_once(ask: Callable[[], Awaitable[T]]) -> T:
    """Do something asynchronous and wait for it, also where an event loop runs already: in a thread of its own.

    Raises:
        BaseException: what `ask` raised.
    """
    done: list[T] = []
    raised: list[BaseException] = []

    async def work() -> None:
        done.append(await ask())

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # for the one who waits
            raised.append(error)

    thread = threading.Thread(target=run, name="windowshift-look")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return done[0]
