"""How numbers are written, on screens and in reports: digits, signs, units, intervals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

MINUS = "−"
NOTHING = "·"
"""What stands where a number is not there."""


class Interval(Protocol):
    """A number with its 95 % interval, whose ends are None where it is undefined."""

    @property
    def value(self) -> float:
        """The number."""
        ...

    @property
    def low(self) -> float | None:
        """The lower end."""
        ...

    @property
    def high(self) -> float | None:
        """The upper end."""
        ...


def number(value: float, decimals: int | None = None) -> str:
    """A number with a real minus sign; without `decimals`, three or four digits that matter."""
    text = f"{value:,.{digits_of(value) if decimals is None else decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # no minus zero
    return text.replace("-", MINUS)


def digits_of(value: float) -> int:
    """How many decimals of a number matter."""
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2


def plain(value: float | None) -> str:
    """A number with two to four significant digits, for narrow places: `571`, `62`, `9.4`, `.83`."""
    if value is None:
        return NOTHING
    size = abs(value)
    if size >= 99.5 or value == int(value):
        text = f"{size:.0f}"
    elif size >= 9.95:
        text = f"{size:.0f}" if size >= 29.5 else f"{size:.1f}"
    elif size >= 1:
        text = f"{size:.1f}"
    else:
        text = f"{size:.2f}".removeprefix("0")
    return (MINUS if value < 0 and text.strip("0.") else "") + text


def signed(value: float | None) -> str:
    """A change with its sign and two decimals, for narrow places: `+.89`, `−1.02`."""
    return NOTHING if value is None else _brief(value, 2, sign=True)


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """An interval for narrow places, `[52, 65]`; nothing where there is none."""
    if low is None or high is None:
        return ""
    shown = signed if sign else plain
    return f"[{shown(low)}, {shown(high)}]"


def _brief(value: float, decimals: int, *, sign: bool) -> str:
    text = f"{abs(value):.{decimals}f}"
    if decimals:
        text = text.removeprefix("0")
    if not text.strip("0."):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How one kind of number is written, the value and the ends of its interval alike.

    Attributes:
        decimals: digits behind the point; None: as many as matter.
        sign: whether a value above 0 has a plus sign; the ends of intervals have none.
        unit: what stands behind the value, with the space before it.
        factor: what numbers are multiplied by before they are written.
        narrow: decimals in narrow places (the terminal UI): "same" as elsewhere, "matter" for two to four
            significant digits, or a number of them, without a leading zero.
        narrow_sign: as `sign`, in narrow places.
        narrow_unit: as `unit`, in narrow places; None: the same.
        narrow_before: what stands before the value in narrow places.
    """

    decimals: int | None = None
    sign: bool = False
    unit: str = ""
    factor: float = 1.0
    narrow: int | Literal["same", "matter"] = "same"
    narrow_sign: bool = False
    narrow_unit: str | None = None
    narrow_before: str = ""

    def text(self, value: float | None, *, narrow: bool = False) -> str:
        """The number alone, as it stands in a column whose head has the unit."""
        if value is None:
            return NOTHING
        return (self.narrow_before if narrow else "") + self._digits(value * self.factor, None, narrow)

    def brief(self, value: float | None) -> str:
        """The number as short as it can be: those in per cent without decimals."""
        return (replace(self, decimals=0) if self.factor == 100 else self).text(value, narrow=True)

    def interval(self, one: Interval | None, *, narrow: bool = False) -> str:
        """The interval in brackets; nothing where there is none."""
        if one is None or one.low is None or one.high is None:
            return ""
        ends = (self._digits(end * self.factor, one.value * self.factor, narrow) for end in (one.low, one.high))
        return "[{}, {}]".format(*ends)

    def with_unit(self, value: float | None, *, narrow: bool = False) -> str:
        """The number with its unit, as it stands in a sentence."""
        if value is None:
            return NOTHING
        unit = self.narrow_unit if narrow and self.narrow_unit is not None else self.unit
        return self.text(value, narrow=narrow) + unit

    def whole(self, one: Interval | None, *, narrow: bool = False, unit: bool = False) -> str:
        """The number with its interval, and its unit where asked for."""
        if one is None:
            return NOTHING
        value = self.with_unit(one.value, narrow=narrow) if unit else self.text(one.value, narrow=narrow)
        return f"{value} {self.interval(one, narrow=narrow) or '[no interval]'}"

    def _digits(self, value: float, like: float | None, narrow: bool) -> str:
        """Write a number that is multiplied already; without fixed decimals, with those that `like` has."""
        if narrow and self.narrow == "matter":
            return plain(value)
        if narrow and isinstance(self.narrow, int):
            return _brief(value, self.narrow, sign=self.narrow_sign)
        decimals = digits_of(value if like is None else like) if self.decimals is None else self.decimals
        return ("+" if self.sign and like is None and value > 0 else "") + number(value, decimals)
