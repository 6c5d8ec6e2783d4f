"""Code that a model wrote: what it may do, and that it cannot reach its own verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from windowshift.core.sandbox import confinement
from windowshift.core.sandbox.assertion import read_assertion
from windowshift.core.sandbox.checker import Checker
from windowshift.core.sandbox.confinement import CandidateLimits, seccomp_filter
from windowshift.core.sandbox.escapes import ESCAPES, VARIABLE, EscapeReport, prove

TESTS = ["assert f(2, 3) == 5", "assert f(10, 4) == 14"]


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    made = Checker(CandidateLimits(seconds=2, total_seconds=4))
    yield made
    made.close()


@pytest.fixture(params=["bubblewrap", "landlock"])
def confined(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checker]:
    monkeypatch.setattr("windowshift.core.sandbox.confinement.mechanism", lambda: request.param)
    made = Checker(CandidateLimits(seconds=2, total_seconds=4))
    yield made
    made.close()


def test_what_is_right_passes_and_what_is_wrong_fails(checker: Checker) -> None:
    right = checker.check("def f(a, b):\n    return a + b", TESTS)
    assert [one.outcome for one in right.tests] == ["passed", "passed"]
    assert right.passes(TESTS) is True
    wrong = checker.check("def f(a, b):\n    return 5", TESTS)
    assert [one.outcome for one in wrong.tests] == ["passed", "failed"]
    assert wrong.tests[1].got == "5"
    assert wrong.passes(TESTS) is False
    assert wrong.passes(TESTS[:1]) is True


def test_a_number_too_long_to_be_written_is_a_value(checker: Checker) -> None:
    code = "def f(a, b):\n    return a ** 20000 + b"
    found = checker.check(code, ["assert f(10, 4) % 100 == 4", "assert f(10, 4) % 100 == 5"]).tests
    long = "a number too long to be written"
    assert [(one.outcome, one.got) for one in found[:1]] == [("passed", long)]
    assert found[1].outcome == "failed"


SAME_HASH = """import json, os, sys
def f(a, b):
    frame = sys._getframe()
    while 'replies' not in frame.f_locals: frame = frame.f_back
    items = [{'int': hex(i * (2 ** 61 - 1))} for i in range(1, 15000)]
    body = {'set': items} if a == 2 else {'dict': [[item, 0] for item in items]}
    data = json.dumps({'token': frame.f_locals['request']['token'], 'value': body}).encode() + b'\\n'
    while data: data = data[os.write(frame.f_locals['replies'], data):]
"""


def test_a_value_that_takes_for_ever_to_put_together_is_none(checker: Checker) -> None:
    found = checker.check(SAME_HASH, ["assert f(2, 3) == 5"]).tests + checker.check(SAME_HASH, [TESTS[1]]).tests
    assert [(one.outcome, "same hash" in one.got) for one in found] == [("failed", True)] * 2


def test_what_decides_tests_outlives_the_thread_that_started_it(checker: Checker) -> None:
    tests = ["assert int(f(2, 3)) == 5"]
    for number in range(3):  # each batch of a scorer has threads of its own
        code = f"def f(a, b): return a + b + 0.0  # {number}"
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(checker.check, code, tests).result().passes(tests) is True


@pytest.mark.parametrize("where", ["seen = {}", "/tmp/seen"])
def test_the_same_question_is_never_asked_twice_of_one_process(checker: Checker, where: str) -> None:
    if where == "seen = {}":
        code = "seen = set()\ndef f(a, b):\n    first = not seen\n    seen.add(1)\n    return 6 if first else a + b"
    else:
        code = f"import os\ndef f(a, b):\n    first = not os.path.exists('{where}')\n    open('{where}', 'w').close()\n"
        code += "    return 6 if first else a + b"
    tests = ["assert f(2, 3) == 6", "assert f(10, 4) == 14", "assert f(2, 3) == 5"]
    assert [one.outcome for one in checker.check(code, tests).tests] == ["passed", "passed", "failed"]


# Each of these tries to pass without computing the sum.
CHEATS = {
    "leaves with success": "import sys\nsys.exit(0)",
    "leaves in the call": "import sys\ndef f(a, b):\n    sys.exit(0)",
    "ends the process": "import os\nos._exit(0)",
    "ends the process in the call": "import os\ndef f(a, b):\n    os._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "registers an exit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(a, b):\n    raise ValueError",
    "equals everything": "class Yes:\n    def __eq__(self, o): return True\n    def __hash__(self): return 1\n"
    "def f(a, b): return Yes()",
    "an int that equals everything": "class Yes(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\n"
    "def f(a, b): return Yes(7)",
    "a str that equals everything": "class Yes(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\n"
    "def f(a, b): return Yes('x')",
    "a list that equals everything": "class Yes(list):\n    def __eq__(self, o): return True\ndef f(a, b): return Yes()",
    "a float that is not one": "def f(a, b): return float('nan')",
    "prints passed": "print('passed')\nprint('{\"value\": 5}')\ndef f(a, b): print('5'); return None",
    "forges a reply on every descriptor": "import os\ndef f(a, b):\n    for d in range(3, 64):\n        try: os.write(d, "
    'b\'{"token": "x", "value": 5}\\n\')\n        except OSError: pass\n    return None',
    "replaces eval": "import builtins\nbuiltins.eval = lambda *a: 5\nbuiltins.compile = lambda *a: '5'",
    "replaces json": "import json\njson.dumps = lambda *a, **k: '{\"value\": 5}'\njson.loads = lambda *a, **k: {}",
    "replaces assert's error": "import builtins\nbuiltins.AssertionError = Exception\ndef f(a, b): return 0",
    "replaces bool": "import builtins\nbuiltins.bool = lambda x: True\ndef f(a, b): return 0",
    "patches the harness": "import sys\nm = sys.modules['__main__']\nm.encode = lambda v, depth=0: True\n"
    "def f(a, b): return 0",
    "walks the frames": "import sys\ndef f(a, b):\n    frame = sys._getframe()\n    while frame:\n"
    "        frame.f_locals.update(reply={'value': True})\n        frame = frame.f_back\n    return 0",
    "raises the wanted": "def f(a, b): raise AssertionError('passed')",
    "hangs": "def f(a, b):\n    while True: pass",
    "sleeps": "import time\ndef f(a, b): time.sleep(60)",
    "hangs when it is loaded": "while True: pass",
    "recurses": "def f(a, b): return f(a, b)",
    "takes all memory": "def f(a, b): return len(bytearray(1 << 33))",
    "makes an endless value": "def f(a, b):\n    x = []\n    x.append(x)\n    return x",
    "makes a deep value": "def f(a, b):\n    x = []\n    for _ in range(10000): x = [x]\n    return x",
    "makes a huge value": "def f(a, b): return 'x' * (1 << 24)",
    "makes a huge number": "def f(a, b): return 1 << (1 << 24)",
    "prints for ever": "def f(a, b):\n    while True: print('x' * 1000)",
    "writes for ever to the reply": "import os\ndef f(a, b):\n    while True:\n        for d in range(3, 9):\n"
    "            try: os.write(d, b'x' * 4096)\n            except OSError: pass",
    "closes everything": "import os\nos.closerange(0, 64)",
    "forks": "import os\nos.fork()\ndef f(a, b): return 0",
    "forks for ever": "import os\nwhile True: os.fork()",
    "starts threads for ever": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
    "starts a program": "import subprocess\ndef f(a, b): return int(subprocess.check_output(['echo', '5']))",
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "kills all": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "aborts": "import os\nos.abort()",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "traces itself": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef f(a, b): return 0",
    "returns a generator": "def f(a, b): yield a + b",
    "returns a coroutine": "async def f(a, b): return a + b",
    "returns a function": "def f(a, b): return lambda: a + b",
    "returns itself": "def f(a, b): return f",
    "returns the string": "def f(a, b): return str(a + b)",
    "returns a tuple": "def f(a, b): return (a + b,)",
    "knows only the first": "def f(a, b): return {(2, 3): 5}.get((a, b))",
    "has no function": "g = 5",
    "is no Python": "def f(a, b) return a + b",
    "has a null byte": "def f(a, b): return 0 # \x00",
    "is empty": "",
    "is prose": "Here is the function that you asked for.",
    "reads its tests": "import gc\ndef f(a, b):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, str) and '== 5' in o: return 5\n    return 0",
    "reads the command": "def f(a, b):\n    text = open('/proc/self/cmdline').read()\n    return 5 if '== 5' in text else 0",
    "raises in repr": "class E(Exception):\n    def __str__(self): raise ValueError\ndef f(a, b): raise E",
    "raises a base exception": "def f(a, b): raise KeyboardInterrupt",
    "raises a group": "def f(a, b): raise ExceptionGroup('x', [ValueError()])",
    "has a property for a class": "class T:\n    @property\n    def __class__(self): return int\ndef f(a, b): return T()",
    "returns a lone surrogate": "def f(a, b): return '\\ud800'",
    "answers for the other": "n = [14, 5]\ndef f(a, b): return n.pop()",
    "lies about its items": "class L(list):\n    def __iter__(self): return iter([5])\ndef f(a, b): return L()",
    "lowers recursion": "import sys\nsys.setrecursionlimit(20)\ndef f(a, b): return 0",
    "makes a fraction of all digits": "class Fraction:\n    def __str__(self): return '1e99999999999'\n"
    "Fraction.__module__ = 'fractions'\ndef f(a, b): return Fraction()",
    "makes a decimal of all digits": "from decimal import Decimal\ndef f(a, b): return Decimal('1e999999999')",
    "makes an endless range": "def f(a, b): return range(10 ** 30)",
    "says that it is an int": "class I:\n    __class__ = int\n    def __int__(self): return 5\ndef f(a, b): return I()",
    "says that it is true": "class I:\n    __class__ = bool\n    def __bool__(self): return True\n"
    "def f(a, b): return I()",
    "an int that is another": "class I(int):\n    def __int__(self): return 5\n    __index__ = __trunc__ = __int__\n"
    "def f(a, b): return I(0)",
    "a float that is another": "class F(float):\n    def __float__(self): return 5.0\ndef f(a, b): return F(0)",
    "a str that is another": "class S(str):\n    def __str__(self): return '5'\ndef f(a, b): return S('0')",
    "bytes that are others": "class B(bytes):\n    def __bytes__(self): return b'5'\ndef f(a, b): return B(b'0')",
    "a dict that is another": "class D(dict):\n    def items(self): return [(5, 5)]\ndef f(a, b): return D()",
    "a class of classes that agrees": "class M(type):\n    def __instancecheck__(self, o): return True\n"
    "    def __eq__(self, o): return True\n    __hash__ = type.__hash__\nclass A(metaclass=M): pass\ndef f(a, b): return A()",
    "swaps code by the collector": "import gc, types\ndef f(a, b):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, types.FunctionType) and o.__name__ == 'encode':\n"
    "            o.__code__ = (lambda value, depth=0: True).__code__\n    return 0",
    "changes what refers to it": "import gc\ndef f(a, b):\n    for o in gc.get_referrers(f):\n"
    "        if isinstance(o, dict): o['value'] = True\n    return 0",
    "traces its caller": "import sys\ndef seen(frame, event, arg):\n    if 'reply' in frame.f_locals:\n"
    "        frame.f_locals['reply']['value'] = True\n    return seen\nsys.settrace(seen)\nframe = sys._getframe()\n"
    "while frame:\n    frame.f_trace = seen\n    frame = frame.f_back\ndef f(a, b): return 0",
    "changes what 5 is": "import ctypes\ndef f(a, b):\n    ctypes.memmove(id(0) + 24, id(5) + 24, 4)\n    return 1 - 1",
    "leaves by an alarm": "import signal\ndef leave(*_): raise SystemExit(0)\nsignal.signal(signal.SIGALRM, leave)\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\ndef f(a, b): return 0",
    "answers in a child": "import os\ndef f(a, b): return 5 if os.fork() == 0 else 0",
    "answers from a thread": "import json, os, threading\ndef go():\n    for d in range(3, 20):\n        try:\n"
    "            asked = json.loads(os.read(d, 4096))\n            for e in range(3, 20):\n                os.write(e, json.dumps("
    "{'token': asked['token'], 'value': True}).encode() + b'\\n')\n        except Exception: pass\n"
    "threading.Thread(target=go, daemon=True).start()\ndef f(a, b): return 0",
    "replaces the encoder": "import json.encoder\njson.encoder.JSONEncoder.encode = lambda s, o: '{\"value\": true}'\n"
    "def f(a, b): return 0",
    "hooks imports": "import sys\nclass H:\n    def find_spec(self, *a): raise SystemExit(0)\n"
    "sys.meta_path.insert(0, H())\ndef f(a, b): return 0",
    "leaves in a destructor": "import os\nclass A:\n    def __del__(self): os._exit(0)\ndef f(a, b):\n    A()\n    return 0",
    "stops itself": "import os, signal\ndef f(a, b): os.kill(os.getpid(), signal.SIGSTOP)",
    "reduces to what is wanted": "class R:\n    def __reduce__(self): return (int, ('5',))\ndef f(a, b): return R()",
    "lies about its day": "class date:\n    def isoformat(self): return {'float': float.hex(5.0)}\n"
    "date.__module__ = 'datetime'\ndef f(a, b): return date()",
    "reads its descriptors": "import os\ndef f(a, b):\n    return ''.join(os.readlink('/proc/self/fd/' + d) for d in "
    "os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + d))",
    "uses a signal": "import signal\nsignal.alarm(1)\ndef f(a, b):\n    while True: pass",
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_does_not_pass(checker: Checker, name: str) -> None:
    start = time.monotonic()
    result = checker.check(CHEATS[name], TESTS)
    assert result.passes(TESTS) is (name == "answers for the other")
    assert time.monotonic() - start < 60  # some never end by themselves
    # Whatever it did, the next candidate is judged as ever.
    assert checker.check("def f(a, b):\n    return b + a", TESTS).passes(TESTS) is True


# Each returns True if it got out.


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out(confined: Checker, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(VARIABLE, "x")
    assert confined.check("def got(): return False", ["assert got() == False"]).passes(["assert got() == False"])
    assert confined.check(ESCAPES[name], ["assert got() == True"]).passes(["assert got() == True"]) is False


def test_a_program_runs_under_either(confined: Checker) -> None:
    code = "import re, math, collections\ndef f(a, b):\n    open('x', 'w').write('ok')\n    return a + b"
    assert confined.check(code, TESTS).passes(TESTS) is True


@pytest.mark.parametrize(
    ("code", "test", "outcome"),
    [
        ("def f(): return {1, 2}", "assert f() == {2, 1}", "passed"),
        ("def f(): return [1, 2]", "assert f() == (1, 2)", "failed"),
        ("def f(): return True", "assert f()", "passed"),
        ("def f(): return 0", "assert not f()", "passed"),
        ("def f(): return [2, 1]", "assert sorted(f()) == [1, 2]", "passed"),
        ("def f(x): return x / 3", "assert abs(f(1) - 0.3333) < 1e-3", "passed"),
        ("def f(x): return x * 2\ndef g(x): return x", "assert f(g(2)) == 4", "passed"),
        ("class A:\n    def go(self, x): return x + 1", "assert A().go(2) == 3", "passed"),
        ("def f(): return 10 ** 40", "assert f() == 10 ** 40", "passed"),
        ("def f(): return b'x', None, 1.5, 2j", "assert f() == (b'x', None, 1.5, 2j)", "passed"),
        ("from collections import Counter\ndef f(): return Counter('aab')", "assert f() == {'a': 2, 'b': 1}", "passed"),
        ("from decimal import Decimal\ndef f(): return Decimal('1.5')", "assert float(f()) == 1.5", "passed"),
        ("def f(): return 1", "assert f() == 1, 'a message'", "passed"),
        ("def f(): return 1", "f() == 1", "passed"),
        ("def f(): return 1", "assert f() == missing_name", "unknown"),
        ("def sum(a, b): return a - b", "assert sum(3, 1) == 2", "passed"),
        ("def isinstance(a, b): return True\ndef f(): return 'x'", "assert isinstance(f(), int)", "failed"),
    ],
)
def test_forms_of_tests(checker: Checker, code: str, test: str, outcome: str) -> None:
    assert checker.check(code, [test]).tests[0].outcome == outcome


def test_a_set_up_is_run_beside_the_candidate(checker: Checker) -> None:
    code = "class Node:\n    def __init__(self, v): self.v = v\ndef f(n): return n.v"
    assert checker.check(code, ["assert f(root) == 3"], "import math\nroot = Node(3)").tests[0].outcome == "passed"
    near = "assert math.isclose(f(root), 3.0)"
    assert checker.check(code, [near], "import math\nroot = Node(3)").tests[0].outcome == "passed"


def test_a_test_that_is_none_is_told() -> None:
    for text in ("x = 1", "assert (", "assert 1 == 1", "", "assert f() == 1\nassert f() == 2"):
        with pytest.raises(ValueError, match="test"):
            read_assertion(text)


def test_the_same_code_is_run_once() -> None:
    checker = Checker()
    for _ in range(3):
        checker.check("def f(a, b): return a + b", TESTS)
    assert checker.runs == 1
    checker.check("def f(a, b): return a + b", TESTS[:1])
    assert checker.runs == 2
    checker.close()


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "_try", lambda name: "not allowed")
    confinement.mechanism.cache_clear()
    with pytest.raises(confinement.SandboxError, match="windowshift\\[code\\]"):
        confinement.mechanism()
    confinement.mechanism.cache_clear()


def test_both_architectures_have_a_filter() -> None:
    for machine in ("x86_64", "aarch64"):
        assert len(seccomp_filter(machine)) % 8 == 0
    with pytest.raises(confinement.SandboxError, match="riscv"):
        seccomp_filter("riscv64")


def test_the_sandbox_is_proven_by_trying_to_get_out() -> None:
    found = prove()
    assert found == EscapeReport(confinement.mechanism(), len(ESCAPES), ())
    assert found.words == f"{found.mechanism} holds: {len(ESCAPES)} of {len(ESCAPES)} ways out are shut"


def test_a_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESCAPES, "adds", "def got(): return 1 + 1 == 2")
    found = prove()
    assert found.open == ("adds",)
    assert "does not hold" in found.words
    assert "adds" in found.words


def test_where_nothing_holds_it_says_how_to_get_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "_try", lambda name: "not allowed")
    confinement.mechanism.cache_clear()
    found = prove()
    confinement.mechanism.cache_clear()
    assert (found.mechanism, found.tried) == (None, 0)
    assert "windowshift[code]" in found.words
