"""One completion: the prompt as the model saw it, the completion, and the base model's beside it."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from windowshift.core.reader import Reader
from windowshift.core.records import BASE, CompletionRow
from windowshift.tui import actions, figures, sanitise
from windowshift.tui.cell import CellScreen, cell_name
from windowshift.tui.cell_snapshot import CompletionSnapshot, read_completion
from windowshift.tui.completion_list import FINISH
from windowshift.tui.headline import Headline
from windowshift.tui.pieces import Pieces
from windowshift.tui.store_screen import StoreScreen
from windowshift.tui.theme import Ink


def prompt_text(completion: CompletionRow, channel: str, ink: Ink) -> Text:
    """Return the messages as the model saw them, the prefix marked."""
    prompt, text = sanitise.block(completion.prompt), Text()
    if completion.phrase is None:
        return text.append(prompt, ink.text)
    phrase = sanitise.block(completion.phrase)
    if channel == "system":
        text.append("system  ", ink.dim).append(phrase, ink.mark)
        return text.append("\nuser    ", ink.dim).append(prompt, ink.text)
    return text.append(phrase, ink.mark).append(f"\n\n{prompt}", ink.text)


class Pane(VerticalScroll, can_focus=False):
    """A completion in a frame with a title."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._text = Static("", markup=False)

    def compose(self) -> ComposeResult:
        """Hold the text."""
        yield self._text

    def show(self, title: str, text: Text) -> None:
        """Show a text under a title."""
        self.border_title = title.replace("[", r"\[")
        self._text.update(text)
        self.scroll_home(animate=False)


class CompletionScreen(StoreScreen[CompletionSnapshot]):
    """Enter on a completion leads here; `n` and `p` go through the list's order."""

    SCREEN_NAME = "completion"
    BINDINGS = actions.bindings("completion")

    def __init__(self, cell: CellScreen) -> None:
        super().__init__()
        self.cell = cell
        self.order = list(cell.completions.order)
        self.position = cell.completions.cursor

    def body(self) -> ComposeResult:
        """Lay out prompt, panes and scores."""
        yield Headline(id="scores")
        with VerticalScroll(id="prompt", can_focus=False):
            yield Static("", id="prompt-text", markup=False)
        with Container(id="panes"):
            yield Pane(id="own")
            yield Pane(id="base")

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return self.cell.experiment, cell_name(self.cell.key), f"row {self.order[self.position]}"

    def reading(self) -> Callable[[Reader], CompletionSnapshot | None]:
        """Read the completion."""
        name, key, behaviour, row = self.cell.experiment, self.cell.key, self.cell.behaviour, self.order[self.position]
        return lambda reader: read_completion(reader, name, key, behaviour, row)

    def nothing(self) -> None:
        """The completion left the store."""
        self.problem("This completion is gone", "It is no longer in the store; Esc goes back to the list.")

    def show(self, snapshot: CompletionSnapshot) -> None:
        """Show the completion."""
        ink, own = self.ink, snapshot.completion
        self.query_one("#headline", Headline).show(
            (
                self.crumbs(self.cell.experiment, cell_name(snapshot.key), f"row {own.row}"),
                [(f"{self.position + 1} of {len(self.order)} ", ink.dim)],
            )
        )
        self.query_one("#scores", Headline).show((self._scores(snapshot), self._end(own)))
        where = f"prefix in the {snapshot.channel} message" if own.phrase else "no prefix"
        prompt = self.query_one("#prompt", VerticalScroll)
        prompt.border_title = f"prompt {sanitise.line(own.prompt_id, 40)} · {where}".replace("[", r"\[")
        self.query_one("#prompt-text", Static).update(prompt_text(own, snapshot.channel, ink))
        # Panes are redrawn only for another text: a run that goes on must not scroll them back.
        self._fill("own", "this" if snapshot.key.train != BASE else "base model", own)
        base = self.query_one("#base", Pane)
        base.display = snapshot.key.train != BASE
        self._fill("base", "base model, same prompt", snapshot.base)

    def _fill(self, pane: str, title: str, completion: CompletionRow | None) -> None:
        ink = self.ink
        if completion is None:
            wanted: tuple[str, Text] = (title, Text("not there yet", ink.dim))
        elif completion.error:
            wanted = (f"{title} · failed", Text(sanitise.block(completion.error), ink.bad))
        else:
            score = figures.plain(completion.score)
            text = Text(sanitise.block(completion.text), ink.text)
            if not completion.text:
                text = Text("(empty)", ink.dim)
            end = FINISH.get(completion.finish, (completion.finish, ""))[0]
            wanted = (f"{title} · {score} {self._unit} · {end}", text)
        widget = self.query_one(f"#{pane}", Pane)
        if getattr(widget, "shown", None) != (wanted[0], wanted[1].plain, ink.dark):
            widget.shown = (wanted[0], wanted[1].plain, ink.dark)  # type: ignore[attr-defined]
            widget.show(*wanted)

    @property
    def _unit(self) -> str:
        return self.snapshot.behaviour.unit if self.snapshot else ""

    def _scores(self, snapshot: CompletionSnapshot) -> Pieces:
        ink = self.ink
        pieces: Pieces = []
        for _, unit, own, base in snapshot.scores:
            pieces += [(f" {unit} ", ink.dim), (figures.plain(own), ink.strong)]
            if base is not None:
                pieces.append((f" base {figures.plain(base)}", ink.blue))
            pieces.append((" ", ink.dim))
        if snapshot.completion.reason:
            pieces.append((f" {sanitise.line(snapshot.completion.reason, 120)}", ink.text))
        return pieces

    def _end(self, own: CompletionRow) -> Pieces:
        ink = self.ink
        word, style = FINISH.get(own.finish, (own.finish, "dim"))
        pieces: Pieces = [(f"{own.prompt_tokens}+{own.tokens} tokens ", ink.dim)]
        pieces += [(word, getattr(ink, style)), (" ", ink.dim)]
        if own.logprob is not None and own.tokens:
            pieces.insert(0, (f"log p {own.logprob / own.tokens:.2f}/token  ".replace("-", figures.MINUS), ink.dim))
        return pieces

    # -- keys -----------------------------------------------------------------------------------

    def _go(self, by: int) -> None:
        place = max(0, min(len(self.order) - 1, self.position + by))
        if place != self.position:
            self.position = place
            self.cell.completions.move(place)
            self.choose()

    def action_next(self) -> None:
        """Show the next completion."""
        self._go(1)

    def action_previous(self) -> None:
        """Show the completion before."""
        self._go(-1)

    def _scroll(self, by: int) -> None:
        for pane in self.query(Pane):
            pane.scroll_relative(y=by, animate=False)

    def action_scroll_up(self) -> None:
        """Scroll both texts up."""
        self._scroll(-1)

    def action_scroll_down(self) -> None:
        """Scroll both texts down."""
        self._scroll(1)

    def action_page_up(self) -> None:
        """Scroll both texts a page up."""
        self._scroll(2 - self.query_one("#own").size.height)

    def action_page_down(self) -> None:
        """Scroll both texts a page down."""
        self._scroll(self.query_one("#own").size.height - 2)

    def action_cursor_first(self) -> None:
        """Go to the start."""
        for pane in self.query(Pane):
            pane.scroll_home(animate=False)

    def action_cursor_last(self) -> None:
        """Go to the end."""
        for pane in self.query(Pane):
            pane.scroll_end(animate=False)
