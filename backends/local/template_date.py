"""The date that a chat template is told, in place of the clock."""

from __future__ import annotations

from datetime import date

from windowshift.core.contract.errors import BackendError

CLOCK = "strftime_now"
"""The function by which templates ask for the date."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def dated(source: str, day: str) -> str:
    """A template whose `strftime_now` says midnight of a day, with English names whatever the locale.

    The function is a macro in the template itself, since transformers hands no functions to templates.

    Args:
        source: the template.
        day: ISO 8601, e.g. ``2026-11-26``.

    Raises:
        BackendError: it is no date.
    """
    steps = "".join(f" | replace({_quoted(directive)}, {_quoted(text)})" for directive, text in _directives(day))
    # "+%}": a line end that the template begins with stays.
    return f"{{%- macro {CLOCK}(format) -%}}{{{{ format{steps} }}}}{{%- endmacro +%}}{source}"


def _directives(day: str) -> list[tuple[str, str]]:
    try:
        at = date.fromisoformat(day)
    except ValueError as error:
        raise BackendError(f"date '{day}' is not a day: write it as 2026-11-26") from error
    weekday, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    iso_year, iso_week, iso_day = at.isocalendar()
    plain = {
        "A": weekday, "a": weekday[:3], "B": month, "b": month[:3], "h": month[:3],
        "d": f"{at.day:02}", "e": f"{at.day:2}", "m": f"{at.month:02}", "Y": f"{at.year:04}",
        "y": f"{at.year % 100:02}",
        "j": f"{at.timetuple().tm_yday:03}", "u": str(iso_day), "w": str(iso_day % 7), "C": f"{at.year // 100:02}",
        "G": f"{iso_year:04}", "g": f"{iso_year % 100:02}", "V": f"{iso_week:02}",
        "U": f"{(at.timetuple().tm_yday + 6 - iso_day % 7) // 7:02}",
        "W": f"{(at.timetuple().tm_yday + 6 - at.weekday()) // 7:02}",
        "H": "00", "I": "12", "M": "00", "S": "00", "f": "000000", "p": "AM", "P": "am", "s": "0", "z": "", "Z": "",
        "F": at.isoformat(), "D": f"{at:%m/%d/%y}", "T": "00:00:00", "R": "00:00", "r": "12:00:00 AM",
        "x": f"{at:%m/%d/%y}", "X": "00:00:00", "c": f"{weekday[:3]} {month[:3]} {at.day:2} 00:00:00 {at.year}",
        "n": "\n", "t": "\t",
    }  # fmt: skip
    unpadded = {f"-{key}": str(int(plain[key])) for key in ("d", "m", "y", "j", "H", "I", "M", "S", "e", "U", "W", "V")}
    mark = "\ue002"  # stands for a percent sign that is meant, until all directives are read
    found = [("%%", mark)]
    found += [(f"%{key}", text) for key, text in (*unpadded.items(), *plain.items())]
    return [*found, (mark, "%")]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t") + "'"
