"""The program inside the sandbox: it runs a candidate's code and hands back the values of expressions.

It is given to a fresh interpreter as text, so it imports the standard library alone. Nothing that it says is
trusted: whatever runs beside a candidate can say anything. So it is never asked whether a test passed; it is
asked for one value at a time, without being told which one would be right.

Requests and replies are JSON lines on standard input and output. Every request has a token of its own that the
reply repeats, so that nothing can be answered ahead of time.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # without typing: it would be half of the start
if TYPE_CHECKING:
    from typing import Any


def confine(plan: dict[str, Any]) -> None:
    """Give up what the candidate must not have; in a fallback sandbox also files and system calls."""
    import resource

    for name, value in plan["limits"].items():
        number = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    if not plan["landlock"]:
        return
    import ctypes
    import os
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError("no_new_privs")
    # Landlock (linux/landlock.h): the same three system calls on every architecture.
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        raise OSError("Landlock is not there")
    handled = (1 << 13) - 1
    if version >= 2:
        handled |= 1 << 13  # REFER
    if version >= 3:
        handled |= 1 << 14  # TRUNCATE
    if version >= 5:
        handled |= 1 << 15  # IOCTL_DEV
    ruleset = ctypes.create_string_buffer(struct.pack("=Q", handled))
    rules = libc.syscall(444, ruleset, 8, 0)
    if rules < 0:
        raise OSError("a Landlock ruleset")
    read = (1 << 0) | (1 << 2) | (1 << 3)  # EXECUTE, READ_FILE, READ_DIR
    write = read | (1 << 1) | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8)
    if version >= 3:
        write |= 1 << 14
    wanted = [(path, read) for path in plan["readable"]] + [(path, write) for path in plan["writable"]]
    for path, allowed in wanted:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, descriptor))
        if libc.syscall(445, rules, 1, rule, 0):
            raise OSError("a Landlock rule for " + path)
        os.close(descriptor)
    if libc.syscall(446, rules, 0):
        raise OSError("Landlock")
    os.close(rules)
    program = bytes.fromhex(plan["filter"])
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(22, 2, ctypes.create_string_buffer(header), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError("seccomp")


def encode(value: Any, depth: int = 0) -> Any:
    """A plain value as tagged JSON; anything else by the name of its type."""
    if depth > 64:
        raise ValueError("the value is nested too deeply")
    deeper = depth + 1
    kind = type(value)  # what it says of itself, its class included, may be another
    if value is None or kind is bool:
        return value
    if issubclass(kind, int):
        number = int.__int__(value)
        return number if -(2**53) < number < 2**53 else {"int": hex(number)}
    if issubclass(kind, float):
        return {"float": float.hex(value)}
    if issubclass(kind, complex):
        plain = complex.__complex__(value)
        return {"complex": [float.hex(plain.real), float.hex(plain.imag)]}
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, bytes):
        return {"bytes": bytes.hex(value)}
    if issubclass(kind, bytearray):
        return {"bytearray": bytearray.hex(value)}
    if issubclass(kind, tuple):
        return {"tuple": [encode(item, deeper) for item in tuple.__iter__(value)]}
    if issubclass(kind, list):
        return {"list": [encode(item, deeper) for item in list.__iter__(value)]}
    if issubclass(kind, frozenset):
        return {"frozenset": [encode(item, deeper) for item in frozenset.__iter__(value)]}
    if issubclass(kind, set):
        return {"set": [encode(item, deeper) for item in set.__iter__(value)]}
    if issubclass(kind, dict):
        return {"dict": [[encode(key, deeper), encode(item, deeper)] for key, item in dict.items(value)]}
    if kind is range:
        return {"range": [encode(value.start), encode(value.stop), encode(value.step)]}
    name, module = kind.__name__, kind.__module__
    if (module, name) in (("decimal", "Decimal"), ("fractions", "Fraction")):
        return {name: str(value)}
    if (module, name) == ("collections", "deque"):
        return {"deque": [encode(item, deeper) for item in value]}
    if module == "datetime" and name in ("date", "datetime", "time"):
        return {name: value.isoformat()}
    if module == "datetime" and name == "timedelta":
        return {name: [value.days, value.seconds, value.microseconds]}
    return {"object": str(name)[:80]}


def main() -> None:
    """Serve requests until the input ends."""
    import json
    import os

    # Bound now: a candidate may replace what these names mean later.
    loads, dumps, run, compiled, failed = json.loads, json.dumps, eval, compile, BaseException
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.dup(1)
    write, read = os.write, requests.readline
    plan = loads(sys.argv[1])
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    confine(plan)
    names: dict[str, Any] = {"__name__": "candidate", "__builtins__": __builtins__}
    largest = plan["reply_bytes"]
    sys.argv[:] = ["candidate"]

    def said(error: BaseException) -> str:
        text = type(error).__name__
        try:  # noqa: SIM105 - without contextlib, which a candidate could change
            text += ": " + str(error)
        except failed:
            pass
        return text[:300]

    while True:
        line = read()
        if not line:
            return
        request = loads(line)
        reply = {"token": request["token"]}
        try:
            if request["do"] == "execute":
                exec(compiled(request["text"], "<candidate>", "exec"), names)
            else:
                if request["do"] == "fresh":
                    names = {"__name__": "test", "__builtins__": __builtins__}
                    for text in request["setup"]:
                        try:  # noqa: SIM105 - as above
                            exec(compiled(text, "<test>", "exec"), names)
                        except Exception:
                            pass  # a name that it did not make is missed where it is used
                    for name, value in request["values"].items():
                        names[name] = decode(value)
                reply["value"] = encode(run(compiled(request["text"], "<test>", "eval"), names))
        except failed as error:
            reply["error"] = said(error)
        try:
            data = dumps(reply).encode()
        except failed as error:
            data = dumps({"token": request["token"], "error": said(error)}).encode()
        if len(data) > largest:
            data = dumps({"token": request["token"], "error": "ValueError: the value is too large"}).encode()
        data += b"\n"
        while data:
            data = data[write(replies, data) :]


_SAME_HASH = 100


def hashed(items: list[Any]) -> list[Any]:
    """Items of a set or keys of a dict, unless so many have the same hash that to put them together takes for ever."""
    counts: dict[int, int] = {}
    for item in items:
        number = hash(item)
        counts[number] = counts.get(number, 0) + 1
    if counts and max(counts.values()) > _SAME_HASH:
        raise ValueError("a set or dict in which more than 100 items have the same hash")
    return items


def decode(value: Any) -> Any:
    """The inverse of `encode`, for the process that runs no candidate.

    A candidate chooses what stands here, and no limit but the reply's size holds where it is read: whatever is built
    of it takes time and memory in proportion to that size. ValueError, TypeError and their kind: it is no value.
    """
    if not isinstance(value, dict):
        return value
    ((kind, body),) = value.items()
    if kind == "int":
        return int(body, 16)
    if kind == "float":
        return float.fromhex(body)
    if kind == "complex":
        return complex(*map(float.fromhex, body))
    if kind in ("bytes", "bytearray"):
        return bytes.fromhex(body) if kind == "bytes" else bytearray.fromhex(body)
    if kind in ("tuple", "list", "set", "frozenset"):
        items = [decode(item) for item in body]
        return {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}[kind](
            hashed(items) if kind in ("set", "frozenset") else items
        )
    if kind == "dict":
        keys = hashed([decode(key) for key, _ in body])
        return dict(zip(keys, [decode(item) for _, item in body], strict=True))
    if kind == "range":
        return range(*map(decode, body))
    import collections
    import datetime
    import decimal
    import fractions

    if kind == "deque":
        return collections.deque(map(decode, body))
    if kind == "timedelta":
        return datetime.timedelta(*body)
    if kind in ("date", "datetime", "time"):
        return getattr(datetime, kind).fromisoformat(body)
    if kind == "Decimal":
        return decimal.Decimal(body)
    if kind == "Fraction":  # by its parts: of '1e999999999' it would make all the digits
        top, _, bottom = body.partition("/")
        return fractions.Fraction(int(top), int(bottom or 1))
    raise ValueError("a value of a type that is not plain: " + str(body))


if __name__ == "__main__":
    main()
