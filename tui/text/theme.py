"""Colours: three themes, the inks of drawn text, and the diverging scale of the grid.

Blue against orange is told apart with every common colour blindness. Nothing is said by colour
alone: a sign, a glyph or a word always stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rich.color import Color
from rich.style import Style
from textual.theme import Theme

DARK = Theme(
    name="windowshift-dark",
    primary="#5fafff",
    secondary="#8787af",
    accent="#ffaf5f",
    success="#5fd7af",
    warning="#ffd75f",
    error="#ff8787",
    foreground="#d7d7d7",
    background="#121212",
    surface="#1c1c1c",
    panel="#262626",
    dark=True,
    variables={"scrollbar": "#444444", "scrollbar-background": "#1c1c1c", "scrollbar-corner-color": "#1c1c1c"},
)
LIGHT = Theme(
    name="windowshift-light",
    primary="#005faf",
    secondary="#5f5f87",
    accent="#af5f00",
    success="#00875f",
    warning="#875f00",
    error="#af0000",
    foreground="#1c1c1c",
    background="#ffffff",
    surface="#f4f4f4",
    panel="#e4e4e4",
    dark=False,
)
# Okabe and Ito's palette on black: told apart with every common colour blindness, states included.
SAFE = Theme(
    name="windowshift-safe",
    primary="#56b4e9",
    secondary="#9aa0b0",
    accent="#e69f00",
    success="#2bc49a",
    warning="#f0e442",
    error="#f07f3c",
    foreground="#e4e4e4",
    background="#000000",
    surface="#101010",
    panel="#1c1c1c",
    dark=True,
    variables={"scrollbar": "#5a5a5a", "scrollbar-background": "#101010", "scrollbar-corner-color": "#101010"},
)
THEMES = (DARK, LIGHT, SAFE)


@dataclass(frozen=True, slots=True)
class Ink:
    """The styles that drawn text uses under one theme."""

    name: str
    dark: bool
    text: Style
    strong: Style
    dim: Style
    faint: Style
    accent: Style
    blue: Style
    good: Style
    warn: Style
    bad: Style
    new: Style
    gone: Style
    cursor: Style
    row: Style
    mark: Style
    key: Style


@cache
def ink(name: str) -> Ink:
    """Return the inks of a theme; those of the first for a name that is none of ours."""
    theme = next((one for one in THEMES if one.name == name), DARK)
    primary, accent, dark = theme.primary, str(theme.accent), theme.dark
    return Ink(
        name=theme.name,
        dark=dark,
        text=Style(color=theme.foreground),
        strong=Style(color="#ffffff" if dark else "#000000", bold=True),
        dim=Style(color="#9e9e9e" if dark else "#585858"),
        faint=Style(color="#585858" if dark else "#a8a8a8"),
        accent=Style(color=accent),
        blue=Style(color=primary),
        good=Style(color=theme.success),
        warn=Style(color=theme.warning),
        bad=Style(color=theme.error),
        new=Style(color=theme.success, underline=True),
        gone=Style(color=theme.error, strike=True),
        cursor=Style(color="#000000" if dark else "#ffffff", bgcolor="#ffffff" if dark else "#000000", bold=True),
        row=Style(bgcolor="#303a46" if dark else "#d7e7f7", bold=True),
        key=Style(color=accent, bold=True),
        mark=Style(color="#121212" if dark else "#ffffff", bgcolor=accent),
    )


_STEPS = 8
# Blue for less, orange for more; from "no change" outwards.
_LESS = {True: ((38, 38, 38), (0, 95, 175), (95, 175, 255)), False: ((238, 238, 238), (135, 175, 215), (0, 95, 175))}
_MORE = {True: ((38, 38, 38), (175, 95, 0), (255, 175, 95)), False: ((238, 238, 238), (255, 195, 120), (200, 95, 0))}
# The same on the 256-colour cube, picked by eye: nearest-colour rounding makes steps that look alike.
_LESS_256 = {True: (235, 236, 24, 24, 25, 25, 31, 32, 75), False: (255, 254, 153, 153, 117, 111, 75, 68, 25)}
_MORE_256 = {True: (235, 236, 94, 94, 130, 130, 136, 172, 215), False: (255, 254, 223, 223, 222, 215, 214, 208, 166)}


@cache
def scale(step: int, dark: bool, few_colours: bool) -> Style:
    """Return the style of a step of the diverging scale, -8 .. 8, 0 being no change."""
    more, size = step > 0, abs(step)
    if few_colours:
        number = (_MORE_256 if more else _LESS_256)[dark][size]
        back = Color.from_ansi(number)
        red, green, blue = back.get_truecolor()
    else:
        near, middle, far = (_MORE if more else _LESS)[dark]
        share = size / _STEPS
        first, second, part = (near, middle, share * 2) if share <= 0.5 else (middle, far, share * 2 - 1)
        red, green, blue = (round(a + (b - a) * part) for a, b in zip(first, second, strict=True))
        back = Color.from_rgb(red, green, blue)
    bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return Style(color="#000000" if bright > 125 else "#ffffff", bgcolor=back)


def step_of(level: float) -> int:
    """Return the step of a level within -1 .. 1; any change at all leaves step 0."""
    size = min(_STEPS, round(abs(level) * _STEPS))
    return size if level > 0 else -size
