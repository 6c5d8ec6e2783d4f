"""Checking a candidate's code against tests. Verdicts are reached here, outside of the process that runs it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from windowshift.core.contract.errors import SandboxError
from windowshift.core.sandbox.assertion import Assertion, imported_names, read_assertion
from windowshift.core.sandbox.confinement import CandidateLimits
from windowshift.core.sandbox.inside import decode
from windowshift.core.sandbox.session import CallResult, Session

TestOutcome = Literal["passed", "failed", "error", "unknown"]
_REMEMBERED = 20_000
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of one candidate.

    Attributes:
        test: as it was written.
        outcome: `passed`, `failed` (another value), `error` (no value: it raised, hung or ended), or `unknown`:
            the test itself could not be decided, which says nothing about the candidate.
        got: the values that came back, for people; or what was raised.
    """

    test: str
    outcome: TestOutcome
    got: str


@dataclass(frozen=True, slots=True)
class CodeResult:
    """A candidate against its tests.

    Attributes:
        ran: whether its code ran at all.
        error: why it did not.
        tests: one result a test, in their order; empty where the code did not run.
    """

    ran: bool
    error: str | None
    tests: tuple[TestResult, ...] = field(default=())

    def passes(self, tests: Sequence[str]) -> bool | None:
        """Whether it passes some of its tests; None where one of them could not be decided."""
        if not self.ran:
            return False
        found = {result.test: result.outcome for result in self.tests}
        outcomes = [found[test.strip()] for test in tests]
        if any(outcome in ("failed", "error") for outcome in outcomes):
            return False
        return None if "unknown" in outcomes else True

    def evidence(self) -> list[dict[str, str]]:
        """The results as JSON, for the completion's screen."""
        return [asdict(result) for result in self.tests]


class Checker:
    """Runs candidates in the sandbox and compares what they return with what was expected.

    Thread-safe. Results are remembered by code, tests and limits, so that the same code is run once.

    Args:
        limits: of one candidate.

    Raises:
        SandboxError: where it is first used, if nothing confines code on this machine.
    """

    def __init__(self, limits: CandidateLimits | None = None) -> None:
        self.limits = limits or CandidateLimits()
        self._known: OrderedDict[str, CodeResult] = OrderedDict()
        self._lock = threading.Lock()
        self._judge = _Judge(self.limits)
        self.runs = 0

    def check(self, code: str, tests: Sequence[str], setup: str = "") -> CodeResult:
        """Check one candidate.

        Args:
            code: what it wrote.
            tests: `assert` lines.
            setup: lines that go before the tests, run beside the candidate.

        Raises:
            ValueError: a test is none, or calls nothing of the candidate's.
            SandboxError: nothing confines code on this machine.
        """
        key = hashlib.sha256(json.dumps([code, list(tests), setup]).encode()).hexdigest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            self.runs += 1
        known = imported_names(setup)
        result = self._run(code, [read_assertion(test, known) for test in tests], setup)
        with self._lock:
            self._known[key] = result
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return result

    def close(self) -> None:
        """End what was kept running."""
        self._judge.close()

    def _run(self, code: str, tests: Sequence[Assertion], setup: str) -> CodeResult:
        results: list[TestResult] = []
        session: Session | None = None
        asked: set[str] = set()
        try:
            for test in tests:
                if session is not None and not asked.isdisjoint(test.calls):
                    # A program that counts could answer the same question as one test wants, then as another does.
                    session.close()
                    session = None
                if session is None:
                    asked.clear()
                    session, error = self._begin(code, setup)
                    if session is None:
                        if not results:
                            return CodeResult(False, error)
                        results.append(TestResult(test.text, "error", error or ""))
                        continue
                asked.update(test.calls)
                values, failed, alive = _values(session, test)
                if not alive:
                    session.close()
                    session = None
                if failed is not None:
                    results.append(TestResult(test.text, "error", failed))
                else:
                    results.append(self._judge.decide(test, values, setup))
        finally:
            if session is not None:
                session.close()
        return CodeResult(True, None, tuple(results))

    def _begin(self, code: str, setup: str) -> tuple[Session | None, str | None]:
        session = Session(self.limits)
        for text in (code, setup):
            if not text.strip():
                continue
            answer = session.ask("execute", text)
            if answer.error is not None or not answer.alive:
                session.close()
                return None, answer.error
        return session, None


def _values(session: Session, test: Assertion) -> tuple[list[Any], str | None, bool]:
    """What a candidate's calls in a test return, why one did not, and whether the program can be asked again."""
    values: list[Any] = []
    for call in test.calls:
        answer = session.ask("value", call)
        if answer.error is not None:
            return values, answer.error, answer.alive
        values.append(answer.value)
    return values, None, True


class _Judge:
    """Decides tests from values. What is more than `== literal` is evaluated in a sandbox that runs no candidate."""

    def __init__(self, limits: CandidateLimits) -> None:
        self._limits = CandidateLimits(limits.seconds, 1e9, limits.memory_mb, limits.file_mb)
        self._lock = threading.Lock()
        self._session: Session | None = None

    def decide(self, test: Assertion, values: Sequence[Any], setup: str) -> TestResult:
        """The verdict on one test, given the values of its calls."""
        try:
            plain = [decode(value) for value in values]
            got = ", ".join(map(_short, plain))
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
            return TestResult(test.text, "failed", str(error)[:_SHOWN] or "no plain value")
        if test.expected is not None:
            try:
                same = bool(plain[0] == test.expected[0])
            except (TypeError, ValueError, ArithmeticError, RecursionError):
                same = False
            return TestResult(test.text, "passed" if same else "failed", got)
        return self._evaluate(test, values, got, setup)

    def _evaluate(self, test: Assertion, values: Sequence[Any], got: str, setup: str) -> TestResult:
        named = {f"value_{number}": value for number, value in enumerate(values)}
        with self._lock:
            fresh = self._session is None
            answer = self._ask(test, named, setup)
            if not fresh and not answer.alive:
                # What went before may have been too much for it, or the thread that started it has ended, and it with
                # it (--die-with-parent): that says nothing about this test.
                answer = self._ask(test, named, setup)
        if answer.error is None:
            return TestResult(test.text, "passed" if answer.value is True else "failed", got)
        if answer.error.startswith("NameError"):
            return TestResult(test.text, "unknown", f"the test cannot be decided: {answer.error}")
        return TestResult(test.text, "failed", f"{got} ({answer.error})")

    def _ask(self, test: Assertion, named: Mapping[str, Any], setup: str) -> CallResult:
        """Have a test evaluated; a program that ran out of memory, or gives no answer, is asked nothing more."""
        if self._session is None:
            self._session = Session(self._limits)
        answer = self._session.ask("fresh", f"bool({test.whole})", setup=[setup], values=named)
        if answer.error is not None and answer.error.startswith("MemoryError"):
            answer = CallResult(None, answer.error, False)
        if not answer.alive:
            self._session.close()
            self._session = None
        return answer

    def close(self) -> None:
        """End the program that evaluates."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits: no fault of the candidate's
        text = "a number too long to be written"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


__all__ = ["Checker", "CodeResult", "SandboxError", "TestOutcome", "TestResult"]
