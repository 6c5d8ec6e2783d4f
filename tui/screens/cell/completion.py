"""One completion: the prompt as the model saw it, the completion, and the base model's beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from windowshift.core.contract import sanitise
from windowshift.core.contract.records import BASE, CompletionRow
from windowshift.core.store.reader import Reader
from windowshift.tui.read.cell_snapshot import CompletionSnapshot, read_completion
from windowshift.tui.read.template_client import ChatTexts, TemplateRequest
from windowshift.tui.screens.cell.cell_numbers import cell_name
from windowshift.tui.screens.cell.screen import CellScreen
from windowshift.tui.screens.store_screen import StoreScreen
from windowshift.tui.text import actions, formats
from windowshift.tui.text.pieces import Pieces, length
from windowshift.tui.text.status import FINISH
from windowshift.tui.text.word_diff import Marked
from windowshift.tui.widgets.evidence import evidence_text
from windowshift.tui.widgets.headline import Headline, KeyLine
from windowshift.tui.widgets.pane import Pane, Panes, prompt_text, said_text, template_text


class CompletionScreen(Panes, StoreScreen[CompletionSnapshot]):
    """Enter on a completion leads here; `n` and `p` go through the list's order."""

    SCREEN_NAME = "completion"
    BINDINGS = actions.bindings("completion")

    @dataclass
    class Rendered(Message):
        """A prompt with its chat template is known."""

        request: TemplateRequest

    def __init__(self, cell: CellScreen) -> None:
        super().__init__()
        self.cell = cell
        self.order = list(cell.completions.order)
        self.position = cell.completions.cursor
        self.diff = False
        self.roles = False
        self.template = False
        self.evidence = False
        self.reasoning = False
        self._chats = ChatTexts()

    def body(self) -> ComposeResult:
        """Lay out prompt, panes and scores."""
        yield Headline(id="scores")
        with VerticalScroll(id="prompt", can_focus=False):
            yield Static("", id="prompt-text", markup=False)
        with Container(id="panes"):
            yield Pane(id="own")
            yield Pane(id="base")
            yield Pane(id="pinned")
        with VerticalScroll(id="evidence", can_focus=False):
            yield Static("", id="evidence-text", markup=False)

    def place(self) -> tuple[str, ...]:
        """Return the way here."""
        return self.cell.experiment, cell_name(self.cell.key), f"row {self.order[self.position]}"

    def reading(self) -> Callable[[Reader], CompletionSnapshot | None]:
        """Read the completion."""
        name, key, behaviour, row = self.cell.experiment, self.cell.key, self.cell.behaviour, self.order[self.position]
        pinned, diff = self.shift.places.pins.against(name, key), self.diff
        return lambda reader: read_completion(reader, name, key, behaviour, row, pinned, diff=diff)

    def nothing(self) -> None:
        """The completion left the store."""
        self.problem("This completion is gone", "It is no longer in the store; Esc goes back to the list.")

    def show(self, snapshot: CompletionSnapshot) -> None:
        """Show the completion."""
        ink, own = self.ink, snapshot.completion
        names = (self.cell.experiment, cell_name(snapshot.key), f"row {own.row}")
        self.head(names, [(f"{self.position + 1} of {len(self.order)} ", ink.dim)], snapshot.experiment.row)
        self.query_one("#scores", Headline).show(*self._score_lines(snapshot))
        self._show_prompt(snapshot)
        self._show_evidence(snapshot)
        # Panes are redrawn only for another text: a run that goes on must not scroll them back.
        self._fill("own", "this" if snapshot.key.train != BASE else "base model", own, snapshot.new)
        base = self.query_one("#base", Pane)
        base.display = snapshot.key.train != BASE or snapshot.base is not None
        title = "base model, same prompt" + (", no push" if snapshot.key.train == BASE else "")
        self._fill("base", title, snapshot.base, snapshot.gone)
        pinned = self.query_one("#pinned", Pane)
        pinned.display = snapshot.pinned_key is not None
        if snapshot.pinned_key is not None:
            other = snapshot.pinned_key
            same = other.generate == snapshot.key.generate
            name = f"{other.train} → {other.evaluate}" if same else cell_name(other)
            self._fill("pinned", f"pinned {name}", snapshot.pinned, snapshot.pinned_new)

    def scrolled(self) -> list[VerticalScroll]:
        """Return what the keys scroll: the evidence where it alone is shown, else the texts with the prompt."""
        if self.evidence and self.snapshot is not None and self.snapshot.findings:
            return [self.query_one("#evidence", VerticalScroll)]
        return [*self.query(Pane), self.query_one("#prompt", VerticalScroll)]

    def _show_evidence(self, snapshot: CompletionSnapshot) -> None:
        """Show what the scorers kept, below the texts, or in place of them."""
        found = self.query_one("#evidence", VerticalScroll)
        found.display = bool(snapshot.findings)
        found.border_title = "how it was scored" + ("" if self.evidence else " · e shows all of it")
        found.set_class(self.evidence, "-whole")
        self.query_one("#panes").display = not (self.evidence and snapshot.findings)
        self.query_one("#evidence-text", Static).update(evidence_text(snapshot.findings, self.ink))
        self.query_one(KeyLine).hide(frozenset() if snapshot.findings else frozenset({"evidence"}))

    def _show_prompt(self, snapshot: CompletionSnapshot) -> None:
        ink, own = self.ink, snapshot.completion
        prefix = f"prefix in the {snapshot.channel} message" if own.phrase else "no prefix"
        push = self.cell.snapshot.push if self.cell.snapshot else ""
        where = sanitise.line(" · ".join(([push] if push else []) + ([prefix] if own.phrase or not push else [])), 160)
        shown = prompt_text(own, snapshot.channel, ink, roles=self.roles)
        if self.template and snapshot.chat is None:
            shown = Text("The job does not say which model it asked, so its chat template is not known.", ink.warn)
        elif self.template and snapshot.chat is not None:
            found = self._chats.known(snapshot.chat)
            if found is None:
                where = "loading the tokenizer …"
                self._ask(snapshot.chat)
            elif found.error:
                where, shown = "chat template", Text(sanitise.block(found.error), ink.warn)
            else:
                where = f"as the model read it, {found.tokens} tokens"
                where += "" if found.template else ", the model has no chat template"
                shown = template_text(found, own, ink)
        title = f"prompt {sanitise.line(own.prompt_id, 40)} · {where}"
        self.query_one("#prompt", VerticalScroll).border_title = title.replace("[", r"\[")
        self.query_one("#prompt-text", Static).update(shown)

    @work(thread=True, exit_on_error=False, group="template")
    def _ask(self, request: TemplateRequest) -> None:
        self._chats.ask(request)
        self.post_message(self.Rendered(request))

    def on_completion_screen_rendered(self, message: Rendered) -> None:
        """Show the prompt, unless another one is on screen by now."""
        message.stop()
        if self.ready and self.snapshot is not None and self.snapshot.chat == message.request:
            self._show_prompt(self.snapshot)

    def on_unmount(self) -> None:
        """End the process that loaded the tokenizer."""
        self._chats.close()

    def _fill(self, pane: str, title: str, completion: CompletionRow | None, marked: Marked | None) -> None:
        ink = self.ink
        if completion is None:
            wanted: tuple[str, Text] = (title, Text("not there yet", ink.dim))
        elif completion.error:
            wanted = (
                f"{title} · {'no answer' if completion.unanswered else 'failed'}",
                said_text(completion, marked, ink, opened=self.reasoning),
            )
        else:
            score = formats.plain(completion.score)
            end = FINISH.get(completion.finish, (completion.finish, ""))[0]
            wanted = (
                f"{title} · {f'{score} {self._unit}'.rstrip()} · {end}",
                said_text(completion, marked, ink, opened=self.reasoning),
            )
        self.query_one(f"#{pane}", Pane).keep(sanitise.line(wanted[0], 120), wanted[1], ink)

    @property
    def _unit(self) -> str:
        return self.snapshot.behaviour.score_unit if self.snapshot else ""

    def _scores(self, snapshot: CompletionSnapshot) -> list[Pieces]:
        """Return the score of each behaviour, the base model's beside it."""
        ink, found = self.ink, []
        for _, unit, own, base in snapshot.scores:
            pieces: Pieces = [(f" {unit} ", ink.dim), (formats.plain(own), ink.strong)]
            if base is not None:
                pieces.append((f" base {formats.plain(base)}", ink.blue))
            found.append([*pieces, (" ", ink.dim)])
        return found

    def _score_lines(self, snapshot: CompletionSnapshot) -> list[tuple[Pieces, Pieces]]:
        """Return the scores in as many lines as they take, and how the completion ended behind the first."""
        end = self._end(snapshot.completion)
        lines: list[tuple[Pieces, Pieces]] = [([], end)]
        for score in self._scores(snapshot):
            left, right = lines[-1]
            if left and length([*left, *score, *right]) >= self.size.width:
                lines.append(([], []))
            lines[-1][0].extend(score)
        return lines

    def on_resize(self) -> None:
        """Lay the scores out for the new width."""
        if self.snapshot is not None and self.ready:
            self.query_one("#scores", Headline).show(*self._score_lines(self.snapshot))

    def _end(self, own: CompletionRow) -> Pieces:
        ink = self.ink
        word, style = FINISH.get(own.finish, (own.finish, "dim"))
        thought = f"+{own.reasoning_tokens}" if own.reasoning is not None else ""
        pieces: Pieces = [
            (f"{own.prompt_tokens}{thought}+{'?' if own.tokens is None else own.tokens} tokens ", ink.dim)
        ]
        pieces += [(word, getattr(ink, style)), (" ", ink.dim)]
        if own.logprob is not None and own.tokens:
            pieces.insert(0, (f"log p {own.logprob / own.tokens:.2f}/token  ".replace("-", formats.MINUS), ink.dim))
        return pieces

    # -- keys -----------------------------------------------------------------------------------

    def _go(self, by: int) -> None:
        place = max(0, min(len(self.order) - 1, self.position + by))
        if place != self.position:
            self.position = place
            self.query_one("#evidence", VerticalScroll).scroll_home(animate=False)
            self.cell.completions.move(place)
            self.choose()

    def action_next(self) -> None:
        """Show the next completion."""
        self._go(1)

    def action_previous(self) -> None:
        """Show the completion before."""
        self._go(-1)

    def action_diff(self) -> None:
        """Mark the words that differ from the base model's, or not."""
        self.diff = not self.diff
        self.choose()

    def action_roles(self) -> None:
        """Show the prompt as messages with roles, or as one text."""
        self.roles, self.template = not self.roles, False
        if self.snapshot is not None:
            self._show_prompt(self.snapshot)

    def action_evidence(self) -> None:
        """Show all that the scorers kept in place of the texts, or the texts again."""
        if self.snapshot is None:
            return
        if not self.snapshot.findings:
            self.shift.say("The scorers of this completion kept nothing but their numbers.")
            return
        self.evidence = not self.evidence
        self._show_evidence(self.snapshot)

    def action_reasoning(self) -> None:
        """Open what the models thought before they answered, or close it."""
        self.reasoning = not self.reasoning
        if self.snapshot is not None:
            self.show(self.snapshot)

    def action_template(self) -> None:
        """Show the prompt with the model's chat template, or without."""
        self.template = not self.template
        if self.snapshot is not None:
            self._show_prompt(self.snapshot)

    def copied(self) -> tuple[str, str] | None:
        """The completion."""
        if self.snapshot is None:
            return None
        own = self.snapshot.completion
        return f"{self.cell.experiment}-{self.cell.key.train}-{self.cell.key.evaluate}-row{own.row}", own.text
