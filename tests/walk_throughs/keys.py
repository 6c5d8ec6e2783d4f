"""The keys of the screen: in the product they are an entry of `REGISTRY`."""

from __future__ import annotations

from windowshift.tui.text.actions import COMMON, Action

REGISTRY = {
    "counts": (Action("unfinished", "u", "u", "unfinished", "leave out what is done", rank=1), *COMMON),
}
