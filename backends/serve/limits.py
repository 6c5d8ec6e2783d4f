"""What one client may ask of the server at once."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The server's limits; what is beyond them is refused with a sentence that names the limit.

    Attributes:
        upload_bytes: the largest upload, its form included. The hosted API takes 512 MB.
        body_bytes: the largest JSON body.
        line_bytes: the longest line of an uploaded JSONL file.
        connections: open connections. Where there are more, the one that has longest been idle is closed: first of
            those that have not shown the key. Where none is idle, the new one is answered with 503.
        strangers: of them, open connections that have not shown the key.
        head_seconds: within which a connection must have sent a request's head.
        body_seconds: within which a body must have arrived, plus its size over `body_rate`.
        body_rate: bytes a second that even a slow client reaches.
        send_seconds: within which a client must have taken a part of an answer.
        jobs: fine-tuning jobs that may wait or be in work; more is answered with 429.
        batches: the same for batches.
        waiting: completions that may wait or be in work; further requests are answered with 429.
        max_tokens: the largest `max_tokens`.
        rpm: requests a minute to everything but /health; 0 is no limit.
    """

    upload_bytes: int = 512 * MIB
    body_bytes: int = 16 * MIB
    line_bytes: int = 4 * MIB
    connections: int = 512
    strangers: int = 128
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    body_rate: int = 64 * 1024
    send_seconds: float = 60.0
    jobs: int = 100
    batches: int = 100
    waiting: int = 4096
    max_tokens: int = 131_072
    rpm: int = 0
