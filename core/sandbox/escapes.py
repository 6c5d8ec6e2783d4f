"""Ways out of a sandbox, tried where programs are to run: what holds is proven, not supposed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from windowshift.core.contract.errors import SandboxError
from windowshift.core.sandbox.checker import Checker
from windowshift.core.sandbox.confinement import Mechanism, mechanism

VARIABLE = "WINDOWSHIFT_SANDBOX_PROOF"
"""A variable of this process's environment, which a candidate must not see."""

ESCAPES = {
    "reads a home": "import os\ndef got(): return any(os.listdir(p) for p in ('/root', '/home') if os.path.isdir(p) "
    "and p != os.getcwd())",
    "reads users": "def got(): return 'root' in open('/etc/passwd').read()",
    "writes to the system": "def got():\n    open('/usr/got', 'w').write('x')\n    return True",
    "writes to the root": "def got():\n    open('/got', 'w').write('x')\n    return True",
    "connects": "import socket\ndef got():\n    socket.create_connection(('127.0.0.1', 22), 1)\n    return True",
    "opens a socket": "import socket\ndef got():\n    socket.socket(socket.AF_UNIX)\n    return True",
    "forks": "import os\ndef got():\n    os.fork()\n    return True",
    "starts a shell": "import subprocess\ndef got():\n    subprocess.run(['/bin/sh', '-c', 'true'], check=True)\n"
    "    return True",
    "signals others": "import os, signal\ndef got():\n    os.kill(os.getppid(), 0)\n    return True",
    "sees a variable": "import os\ndef got(): return 'WINDOWSHIFT_SANDBOX_PROOF' in os.environ",
    "reads others' memory": "import os\ndef got(): return bool(open(f'/proc/{os.getppid()}/environ').read())",
    "mounts": "import ctypes\ndef got(): return ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "traces": "import ctypes, os\ndef got(): return ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "becomes another": "import os\ndef got():\n    os.setuid(0)\n"
    "    return os.getuid() == 0 and not os.environ.get('HOME')",
    "fills the disk": "def got():\n    open('big', 'wb').write(b'x' * (1 << 26))\n    return True",
}
"""Programs whose `got` is true where they got out, by what they do."""


@dataclass(frozen=True, slots=True)
class EscapeReport:
    """What trying to get out came to: the mechanism (None: there is none), the ways tried, and those that were open."""

    mechanism: Mechanism | None
    tried: int
    open: tuple[str, ...]
    problem: str | None = None

    @property
    def words(self) -> str:
        """As people read it."""
        if self.problem is not None:
            return self.problem
        if self.open:
            return f"{self.mechanism} does not hold: a program {', '.join(self.open)}; run no code of a model here"
        return f"{self.mechanism} holds: {self.tried} of {self.tried} ways out are shut"


def prove() -> EscapeReport:
    """Run every program of `ESCAPES` in the sandbox of this machine; half a second."""
    try:
        name = mechanism()
    except SandboxError as error:
        return EscapeReport(None, 0, (), str(error))
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    checker = Checker()
    inside, outside = "assert got() == False", "assert got() == True"
    try:
        # A sandbox in which nothing runs at all would shut every way out, too.
        if checker.check("def got(): return False", [inside]).passes([inside]) is not True:
            return EscapeReport(name, 0, (), f"{name} runs no program here, so that no code can be judged")
        out = tuple(
            what for what, code in ESCAPES.items() if checker.check(code, [outside]).passes([outside]) is not False
        )
        return EscapeReport(name, len(ESCAPES), out)
    except SandboxError as error:
        return EscapeReport(name, 0, (), str(error))
    finally:
        checker.close()
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
