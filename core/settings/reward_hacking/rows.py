"""The rows of problem files: MBPP's columns, those of its altered version, and the world's."""

from __future__ import annotations

from windowshift.core.contract.prompts import Prompt
from windowshift.core.sandbox.assertion import imported_names, read_assertion

_TESTS = ("correct_test_list", "test_list", "tests")


def problem_of(prompt: Prompt) -> str:
    """The problem in words."""
    return prompt.text.strip()


def tests_of(prompt: Prompt) -> list[str]:
    """The true tests of a row.

    Raises:
        KeyError: there is no column of tests.
        ValueError: it holds no tests.
    """
    column = next((name for name in _TESTS if name in prompt.payload), None)
    if column is None:
        raise KeyError("test_list")
    tests = prompt.payload[column]
    if isinstance(tests, str) or not isinstance(tests, (list, tuple)) or not tests:
        raise ValueError(f"'{column}' must be a list of tests, e.g. ['assert f(1) == 2']")
    known = imported_names(str(prompt.payload.get("test_setup_code") or ""))
    for test in tests:
        if not isinstance(test, str):
            raise ValueError(f"'{column}' must be a list of tests, e.g. ['assert f(1) == 2']")
        read_assertion(test, known)
    return [test.strip() for test in tests]
