"""Lists with cursors: ``?after=ID&limit=N`` in, ``{"object": "list", "data", "has_more"}`` out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.datastructures import QueryParams

from windowshift.backends.serve.api_error import ApiError, missing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListPage:
    """Which part of a list is wanted; `newest` first unless a client asks for the other order."""

    after: str | None = None
    limit: int = 20
    newest: bool = True

    @classmethod
    def parse(cls, query: QueryParams, *, limit: int = 20, most: int = 100) -> ListPage:
        """Read the query.

        Raises:
            ApiError: `limit` or `order` makes no sense.
        """
        text = query.get("limit")
        if text is not None:
            if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
                raise ApiError(400, f"limit must be a whole number from 1 to {most}", param="limit")
            limit = int(text)
        order: Literal["asc", "desc"] | str = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise ApiError(400, "order must be 'asc' or 'desc'", param="order")
        return cls(query.get("after"), limit, order == "desc")

    def rows(
        self,
        connection: sqlite3.Connection,
        table: str,
        where: Sequence[tuple[str, Sequence[object]]] = (),
        *,
        what: str,
    ) -> tuple[list[sqlite3.Row], bool]:
        """Rows of a table with columns `n` and `id`, and whether there are more.

        Args:
            connection: the database.
            table: its name; not from a client.
            where: SQL conditions, each with its values; conditions are not from a client.
            what: the word for a row, for the error.

        Raises:
            ApiError: there is no row `after`.
        """
        conditions = [each for each, _ in where]
        values = [value for _, some in where for value in some]
        if self.after is not None:
            cursor = connection.execute(f"SELECT n FROM {table} WHERE id = ?", (self.after,)).fetchone()
            if cursor is None:
                raise missing(what, self.after, param="after", status=400)
            conditions.append("n < ?" if self.newest else "n > ?")
            values.append(cursor["n"])
        query = f"SELECT * FROM {table}" + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        direction = "DESC" if self.newest else "ASC"
        found = connection.execute(f"{query} ORDER BY n {direction} LIMIT ?", (*values, self.limit + 1)).fetchall()
        return found[: self.limit], len(found) > self.limit


def listed(items: Sequence[T], more: bool, show: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    """The response of a list endpoint."""
    data = [show(item) for item in items]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}
