"""A test as a line of Python: which of its parts the candidate computes, and which are computed without it."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_BUILTINS = frozenset(dir(builtins))
_PLACE = "value_"


@dataclass(frozen=True, slots=True)
class Assertion:
    """A test taken apart.

    The candidate is asked for the value of each of `calls`, one at a time, and never sees the rest. `whole` is
    the test with `value_0`, `value_1`, ... in their places; it is decided where no candidate runs. In
    `expected` is the right side of a plain `call == literal`, which is compared at once.

    Attributes:
        text: the test as it was written.
        calls: expressions that call the candidate.
        whole: an expression whose truth is the verdict.
        expected: (value,) of a literal that the only call has to equal, else None.
    """

    text: str
    calls: tuple[str, ...]
    whole: str
    expected: tuple[Any, ...] | None


@lru_cache(maxsize=4096)
def read_assertion(text: str, known: frozenset[str] = frozenset()) -> Assertion:
    """Take a test apart.

    Args:
        text: one line or more, `assert ...` (its message is left out) or an expression.
        known: names that are not the candidate's: what the test's own set-up imports.

    Raises:
        ValueError: it is no such test, or it calls nothing that a candidate could have written.
    """
    try:
        parsed = ast.parse(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the test is not Python: {text.strip()[:120]!r}") from error
    if len(parsed.body) != 1 or not isinstance(parsed.body[0], ast.Assert | ast.Expr):
        raise ValueError(f"a test is one assert, not {text.strip()[:120]!r}")
    statement = parsed.body[0]
    condition = statement.test if isinstance(statement, ast.Assert) else statement.value
    taker = _Taker(known | _BUILTINS)
    whole = ast.fix_missing_locations(taker.visit(condition))
    if not taker.calls:  # a function that was asked for under the name of a builtin
        taker = _Taker(known)
        whole = ast.fix_missing_locations(taker.visit(ast.parse(text.strip()).body[0]))
        whole = whole.test if isinstance(whole, ast.Assert) else whole.value
    if not taker.calls:
        raise ValueError(f"the test calls no function of the code: {text.strip()[:120]!r}")
    return Assertion(text.strip(), tuple(taker.calls), ast.unparse(whole), _expected(whole, len(taker.calls)))


class _Taker(ast.NodeTransformer):
    """Puts names in the places of the outermost expressions that need the candidate."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = known
        self.calls: list[str] = []

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Take a call whose function is no builtin; else look inside."""
        if self._is_candidates(node.func):
            self.calls.append(ast.unparse(node))
            return ast.Name(f"{_PLACE}{len(self.calls) - 1}", ast.Load())
        return self.generic_visit(node)

    def _is_candidates(self, function: ast.expr) -> bool:
        root = function
        while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
            root = root.func if isinstance(root, ast.Call) else root.value
        return isinstance(root, ast.Name) and root.id not in self._known


def _expected(whole: ast.AST, calls: int) -> tuple[Any, ...] | None:
    if calls != 1 or not isinstance(whole, ast.Compare) or len(whole.ops) != 1 or not isinstance(whole.ops[0], ast.Eq):
        return None
    sides = [whole.left, whole.comparators[0]]
    for mine, other in (sides, sides[::-1]):
        if isinstance(mine, ast.Name) and mine.id == f"{_PLACE}0":
            try:
                return (ast.literal_eval(other),)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                return None
    return None


def imported_names(lines: str) -> frozenset[str]:
    """The names that a test's set-up imports: its own, and no candidate's."""
    try:
        parsed = ast.parse(lines)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    return frozenset(
        (alias.asname or alias.name).split(".")[0]
        for node in parsed.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    )
