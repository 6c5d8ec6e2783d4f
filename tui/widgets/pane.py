"""Texts in frames that scroll together, the words that differ marked."""

from __future__ import annotations

import json

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.core.contract.phrases import PROMPT, fixed_parts, phrase_parts
from windowshift.core.contract.records import CompletionRow
from windowshift.tui.read.template_client import ChatText
from windowshift.tui.text.theme import Ink
from windowshift.tui.text.word_diff import Marked

PAYLOAD_VALUE = 160  # characters of a payload's value that are shown


def prompt_text(completion: CompletionRow, channel: str, ink: Ink, *, roles: bool = False) -> Text:
    """Return the messages as the model saw them, the prefix marked; `roles` names who says what.

    What the prompt carries beside its text stands below it.
    """
    asked = completion.asked
    text = Text()
    phrase = completion.phrase
    parts = list(phrase_parts(phrase or "", asked))
    turns = asked.turns
    if phrase is not None and channel == "system":
        said = "".join(part for part, _ in parts)
        text.append("system  ", ink.dim).append(sanitise.block(said), ink.mark).append("\n")
        if turns and turns[0].role == "system":
            text.append("\n").append(sanitise.block(turns[0].content), ink.text).append("\n")
            turns = turns[1:]
        roles = True
    roles = roles or bool(turns)
    for turn in turns:
        text.append(f"{turn.role:<7} ", ink.dim)
        text.append(sanitise.block(turn.content), ink.text).append("\n")
    if roles:
        text.append("user    ", ink.dim)
    if phrase is not None and channel != "system":
        for part, own in parts:
            text.append(sanitise.block(part), ink.text if own else ink.mark)
        text.append("" if PROMPT in phrase else "\n\n", ink.text)
    if phrase is None or channel == "system" or PROMPT not in phrase:
        text.append(sanitise.block(asked.text), ink.text)
    if asked.payload:
        text.append("\n")
    for key, value in asked.payload.items():
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.append(f"\n{sanitise.line(key, 24)}  ", ink.dim).append(sanitise.line(said, PAYLOAD_VALUE), ink.text)
    return text


def template_text(found: ChatText, completion: CompletionRow, ink: Ink) -> Text:
    """Return the prompt with its chat template, the prefix marked; says so where it is not what the run counted."""
    text = Text(sanitise.block(found.text), ink.text)
    if completion.phrase:
        text.highlight_words([sanitise.block(part) for part in fixed_parts(completion.phrase)], ink.mark)
    if completion.prompt_tokens and completion.prompt_tokens != found.tokens:
        text.append(
            f"\nThe run counted {completion.prompt_tokens} tokens: it read another prompt than this one.", ink.bad
        )
    return text


def marked_text(text: str, marked: Marked | None, ink: Ink) -> Text:
    """Return a completion, with the words that differ marked where they are known."""
    if not text:
        return Text("(empty)", ink.dim)
    if marked is None:
        return Text(sanitise.block(text), ink.text)
    styles = {"same": ink.text, "gone": ink.gone, "new": ink.new}
    shown, room = Text(), sanitise.LONGEST
    for part, mark in marked:
        if room <= 0:
            shown.append(f"\n… {sum(len(p) for p, _ in marked) - sanitise.LONGEST:,} more characters", ink.dim)
            break
        shown.append(sanitise.block(part[:room], sanitise.LONGEST), styles[mark])
        room -= len(part)
    return shown


def said_text(completion: CompletionRow, marked: Marked | None, ink: Ink, *, opened: bool | None = None) -> Text:
    """Return what the model thought, apart, then what it said, or why there is nothing.

    A thought is one line: it may be many times as long as the answer. `opened` says whether it stands there whole;
    None: this screen has no key for it.
    """
    text = _thought(completion, ink, opened)
    if completion.error:
        return text.append(sanitise.block(completion.error), ink.bad)
    return text.append_text(marked_text(completion.text, marked, ink))


def _thought(completion: CompletionRow, ink: Ink, opened: bool | None) -> Text:
    if completion.reasoning is None:
        return Text()
    count = f"{completion.reasoning_tokens:,} tokens" if completion.reasoning_tokens else "tokens not counted"
    if not completion.reasoning:
        return Text(f"thought, {count}: nothing that is shown\n\n", ink.faint)
    if not opened:
        return Text(f"▸ thought, {count}{'' if opened is None else ' (o opens)'}\n\n", ink.faint)
    text = Text(f"▾ thought, {count} (o closes)\n", ink.faint)
    return text.append(f"{sanitise.block(completion.reasoning)}\n\n", ink.dim)


class Pane(VerticalScroll, can_focus=False):
    """A completion in a frame with a title."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._text = Static("", markup=False)
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """Hold the text."""
        yield self._text

    def keep(self, title: str, text: Text, ink: Ink) -> None:
        """Show a text under a title; the same text stays where it was scrolled to."""
        shown = (title, text.plain, tuple(text.spans), ink.name)
        if shown == self._shown:
            return
        same = bool(self._shown) and self._shown[1] == text.plain
        self._shown = shown
        self.border_title = title.replace("[", r"\[")
        self._text.update(text)
        if not same:
            self.scroll_home(animate=False)


class Panes(Screen[None]):
    """A screen whose panes scroll together."""

    def scrolled(self) -> list[VerticalScroll]:
        """Return what the keys scroll."""
        return list(self.query(Pane))

    def _scroll(self, by: int) -> None:
        for part in self.scrolled():
            part.scroll_relative(y=by, animate=False)

    def _page(self) -> int:
        return max(1, next((part.size.height for part in self.scrolled() if part.display), 3) - 2)

    def action_scroll_up(self) -> None:
        """Scroll all texts up."""
        self._scroll(-1)

    def action_scroll_down(self) -> None:
        """Scroll all texts down."""
        self._scroll(1)

    def action_page_up(self) -> None:
        """Scroll all texts a page up."""
        self._scroll(-self._page())

    def action_page_down(self) -> None:
        """Scroll all texts a page down."""
        self._scroll(self._page())

    def action_cursor_first(self) -> None:
        """Go to the start."""
        for part in self.scrolled():
            part.scroll_home(animate=False)

    def action_cursor_last(self) -> None:
        """Go to the end."""
        for part in self.scrolled():
            part.scroll_end(animate=False)
