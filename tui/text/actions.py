"""The one registry of commands: it feeds key bindings, footer, command palette and help."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True, slots=True)
class Action:
    """A command of a screen: `name` is the method `action_<name>`, `label` its word in the footer.

    `keys` are Textual's key names; `shown` is how people see them. Where the footer is too narrow,
    the actions of the highest `rank` leave first; rank 0 never shows there. `foot` is what stands there in place of
    `shown` where a key and its opposite share a place.
    """

    name: str
    keys: str
    shown: str
    label: str
    help: str
    rank: int = 0
    foot: str = ""

    @property
    def footed(self) -> str:
        """The key as the footer shows it."""
        return self.foot or self.shown


UP = Action("cursor_up", "up,k", "↑ k", "up", "move up")
DOWN = Action("cursor_down", "down,j", "↓ j", "down", "move down")
LEFT = Action("cursor_left", "left,h", "← h", "left", "move left")
RIGHT = Action("cursor_right", "right,l", "→ l", "right", "move right")
PAGE_UP = Action("page_up", "pageup", "PgUp", "page up", "move a page up")
PAGE_DOWN = Action("page_down", "pagedown", "PgDn", "page down", "move a page down")
FIRST = Action("cursor_first", "home,g", "Home g", "first", "go to the first")
LAST = Action("cursor_last", "end,G", "End G", "last", "go to the last")
OPEN = Action("open", "enter", "↵", "open", "open what is under the cursor", rank=1)
BACK = Action("back", "escape,backspace", "Esc", "back", "go back (Backspace does the same)", rank=2)
FILTER = Action("filter", "slash", "/", "filter", "show only lines that contain a text; empty shows all", rank=3)
PAUSE = Action("pause", "P", "P", "pause", "pause the run, or let it go on", rank=4)
CANCEL = Action("cancel", "X", "X", "cancel", "cancel, after a confirmation", rank=5)
RETRY = Action("retry", "R", "R", "retry", "try a failed or cancelled job again", rank=4)
JOBS = Action("jobs", "J", "J", "jobs", "jobs: what runs, waits and failed", rank=2)
HELP = Action("help", "question_mark", "?", "help", "every key of this screen", rank=1)
THEME = Action("theme", "T", "T", "theme", "next theme: dark, light, safe for colour-blind eyes")
BEHAVIOUR = Action("behaviour", "b", "b", "behaviour", "next behaviour of those that were measured", rank=4)
COMPARE = Action("compare", "c", "c", "compare", "compare the pinned rows side by side", rank=3)
STEERING = Action("steering", "s", "s", "steering", "vectors, layers, doses, and both arms at matched dose", rank=2)
MICROSCOPE = Action(
    "microscope", "M", "M", "microscope", "inoculation or only context: conditions by their controls", 2
)
PLOTS = Action("plots", "p", "p", "plots", "figures of this experiment, on screen and as files", rank=3)
COPY = Action("copy", "y", "y", "copy", "copy what is under the cursor; says where it went", rank=6)
COPY_TABLE = Action("copy_table", "Y", "Y", "copy table", "copy the whole table as Markdown")
COPY_TSV = Action("copy_tsv", "ctrl+y", "^y", "copy TSV", "copy the whole table as tab-separated values")
QUIT = Action("quit", "q", "q", "quit", "leave; a run goes on without the screen", rank=3)
PALETTE = Action("palette", "ctrl+p", "^p", "commands", "find a command by name", rank=6)

COPYING = (COPY, COPY_TABLE, COPY_TSV)
COMMON = (BACK, HELP, PALETTE, THEME, QUIT)
LIST = (UP, DOWN, PAGE_UP, PAGE_DOWN, FIRST, LAST)

REGISTRY: dict[str, tuple[Action, ...]] = {
    "experiments": (
        OPEN,
        Action("new", "n", "n", "new", "new experiment from a template, edited in $EDITOR", rank=2),
        Action("start", "s", "s", "start", "start its run, or go on with one that was interrupted", rank=3),
        JOBS,
        FILTER,
        PAUSE,
        CANCEL,
        Action("delete", "D", "D", "delete", "delete the experiment, after a confirmation", rank=6),
        *COPYING,
        *LIST,
        *COMMON,
    ),
    "grid": (
        OPEN,
        Action("metric", "m", "m", "metric", "next number: change, mean, interval width, n, truncated", rank=1),
        Action("next_page", "right_square_bracket", "]", "data", "next generation condition", rank=0),
        Action("previous_page", "left_square_bracket", "[", "data", "previous generation condition", 2, "[ ]"),
        Action("pin", "space", "␣", "pin", "pin this row for comparing, or take the pin away (four at most)", rank=2),
        COMPARE,
        Action("unpin", "u", "u", "unpin", "take all pins away"),
        PLOTS,
        STEERING,
        MICROSCOPE,
        Action("arm", "a", "a", "arm", "the other arm's page, on the same data", rank=2),
        BEHAVIOUR,
        Action("together", "t", "t", "together", "traits side by side, then outcomes stacked, then one behaviour", 4),
        JOBS,
        Action("extreme", "e", "e", "extreme", "go to the lowest, then to the highest cell", rank=5),
        Action("previous_seed", "left_curly_bracket", "{", "seed", "previous seed", rank=6, foot="{ }"),
        Action("next_seed", "right_curly_bracket", "}", "seed", "next seed"),
        Action("previous_step", "less_than_sign", "<", "step", "earlier checkpoint", rank=6, foot="< >"),
        Action("next_step", "greater_than_sign", ">", "step", "later checkpoint"),
        Action("pause", "P", "P", "pause", PAUSE.help, rank=6),
        CANCEL,
        *COPYING,
        UP,
        DOWN,
        LEFT,
        RIGHT,
        FIRST,
        LAST,
        *COMMON,
    ),
    "cell": (
        OPEN,
        Action("sort", "s", "s", "sort", "next order: row, score, length, text", rank=1),
        Action("turn", "S", "S", "turn", "turn the order round", rank=3),
        Action("pin", "space", "␣", "pin", "pin this cell: others are shown against it", rank=2),
        BEHAVIOUR,
        Action(
            "filter",
            "slash",
            "/",
            "filter",
            "filter: text  -not  len>200  score<3  tokens>9  row<5  end=cut  /regex/i; empty shows all",
            rank=3,
        ),
        COMPARE,
        Action("rerun", "r", "r", "rerun", "copy the command that runs this cell again, in another workspace"),
        JOBS,
        *COPYING,
        *LIST,
        *COMMON,
    ),
    "completion": (
        Action("next", "n,right,l", "n →", "next", "next completion in the list's order", rank=1),
        Action("previous", "p,left,h", "p ←", "previous", "previous completion", rank=1),
        Action("diff", "d", "d", "diff", "mark the words that differ from the base model's text", rank=1),
        Action("roles", "r", "r", "roles", "show the prompt as messages with their roles", rank=3),
        Action("template", "t", "t", "template", "show the prompt with the model's chat template", rank=3),
        Action("evidence", "e", "e", "evidence", "show all that the scorers kept, in place of the texts", rank=2),
        Action("reasoning", "o", "o", "thought", "open or close what the model thought before it answered"),
        COPY,
        Action("scroll_up", "up,k", "↑ k", "up", "scroll both texts up"),
        Action("scroll_down", "down,j", "↓ j", "down", "scroll both texts down"),
        Action("page_up", "pageup", "PgUp", "page up", "scroll both texts a page up"),
        Action("page_down", "pagedown,space", "PgDn", "page down", "scroll both texts a page down"),
        Action("cursor_first", "home,g", "Home g", "first", "go to the start of the texts"),
        Action("cursor_last", "end,G", "End G", "last", "go to the end of the texts"),
        *COMMON,
    ),
    "compare": (
        Action("next", "n,right,l", "n →", "prompt", "the next prompt's completions", rank=1),
        Action("previous", "p,left,h", "p ←", "prompt", "the previous prompt's completions"),
        Action("next_condition", "right_square_bracket", "]", "eval", "next eval condition", rank=1, foot="[ ]"),
        Action("previous_condition", "left_square_bracket", "[", "eval", "previous eval condition"),
        Action("view", "v", "v", "view", "next view: all that fits, completions, scatter", rank=1),
        Action("swap", "x", "x", "turn", "turn the order round: the difference is second minus first", rank=3),
        Action("diff", "d", "d", "diff", "mark the words that differ from the first row's text", rank=2),
        BEHAVIOUR,
        *COPYING,
        Action("scroll_up", "up,k", "↑ k", "up", "scroll all texts up"),
        Action("scroll_down", "down,j", "↓ j", "down", "scroll all texts down"),
        Action("page_up", "pageup", "PgUp", "page up", "scroll all texts a page up"),
        Action("page_down", "pagedown,space", "PgDn", "page down", "scroll all texts a page down"),
        *COMMON,
    ),
    "plots": (
        Action("next", "right,l,n", "→", "next", "next figure", rank=1),
        Action("previous", "left,h,p", "←", "previous", "previous figure", rank=1),
        Action("next_page", "right_square_bracket", "]", "data", "next arm or generation condition", 2, "[ ]"),
        Action("previous_page", "left_square_bracket", "[", "data", "previous arm or generation condition"),
        Action("export", "e", "e", "export", "write PNG, SVG, PDF and CSV into the workspace's plots folder", rank=1),
        BEHAVIOUR,
        *COPYING,
        *COMMON,
    ),
    "steering": (
        Action(
            "next",
            "right,l,n",
            "→",
            "part",
            "next part: vectors, cosines, layers, doses, matches, controls, arms, pairs",
            rank=1,
        ),
        Action("previous", "left,h,p", "←", "part", "previous part", rank=1),
        Action("vector", "v", "v", "vector", "next vector", rank=2),
        Action(
            "next_pair",
            "right_square_bracket",
            "]",
            "pair",
            "next matched pair of train conditions",
            2,
            "[ ]",
        ),
        Action("previous_pair", "left_square_bracket", "[", "pair", "previous matched pair of train conditions"),
        Action("compare", "c", "c", "compare", "pin both rows of the matched pair and compare them", rank=1),
        Action("export", "e", "e", "export", "write the dose-response as PNG, SVG, PDF and CSV", rank=3),
        JOBS,
        *COPYING,
        Action("scroll_up", "up,k", "↑ k", "up", "scroll up"),
        Action("scroll_down", "down,j", "↓ j", "down", "scroll down"),
        Action("page_up", "pageup", "PgUp", "page up", "scroll a page up"),
        Action("page_down", "pagedown,space", "PgDn", "page down", "scroll a page down"),
        Action("cursor_first", "home,g", "Home g", "first", "go to the top"),
        Action("cursor_last", "end,G", "End G", "last", "go to the bottom"),
        *COMMON,
    ),
    "microscope": (
        Action("next", "right,l,n", "→", "condition", "next train condition with controls", rank=1),
        Action("previous", "left,h,p", "←", "condition", "previous train condition", rank=1),
        BEHAVIOUR,
        Action("export", "e", "e", "export", "write the figure as PNG, SVG, PDF and CSV", rank=3),
        JOBS,
        *COPYING,
        Action("scroll_up", "up,k", "↑ k", "up", "scroll up"),
        Action("scroll_down", "down,j", "↓ j", "down", "scroll down"),
        Action("page_up", "pageup", "PgUp", "page up", "scroll a page up"),
        Action("page_down", "pagedown,space", "PgDn", "page down", "scroll a page down"),
        Action("cursor_first", "home,g", "Home g", "first", "go to the top"),
        Action("cursor_last", "end,G", "End G", "last", "go to the bottom"),
        *COMMON,
    ),
    "jobs": (
        Action(
            "open", "enter", "↵", "its cell", "open the cell that an evaluation fills, or a vector's screen", rank=2
        ),
        FILTER,
        Action("first", "plus", "+", "first", "do this job, and what it waits for, before all others", rank=4),
        Action("last", "minus", "-", "last", "do this job after all others", rank=5),
        Action("fold", "f", "f", "fold", "finished score jobs as one line, or each", rank=6),
        Action("only", "o", "o", "only", "show all jobs, only unfinished, only failed", rank=2),
        Action("pause", "P", "P", "pause", "pause this job, or let it go on", rank=4),
        CANCEL,
        RETRY,
        *COPYING,
        *LIST,
        *COMMON,
    ),
    "choice": (
        Action("open", "enter", "↵", "take", "take the one under the cursor", rank=1),
        Action("back", "escape,q", "Esc", "leave", "leave it", rank=1),
        UP,
        DOWN,
        FIRST,
        LAST,
    ),
    "problem": (
        Action("yes", "e,enter", "e", "edit", "open the editor again", rank=1),
        Action("no", "escape,q,n", "Esc", "leave", "leave it; the file stays", rank=1),
    ),
    "help": (BACK, UP, DOWN, QUIT),
    "confirm": (
        Action("yes", "y", "y", "yes", "do it", rank=1),
        Action("no", "n,escape,q", "n", "no", "leave it", rank=1),
    ),
}


def bindings(screen: str) -> list[BindingType]:
    """Return the key bindings of a screen."""
    return [
        Binding(
            action.keys,
            action.name,
            action.label,
            show=False,
            key_display=action.shown,
            tooltip=action.help,
            id=f"{screen}.{action.name}",
        )
        for action in REGISTRY[screen]
        if action is not PALETTE  # Textual binds it itself, on every screen
    ]


def footer(screen: str, width: int, hidden: frozenset[str] = frozenset()) -> list[Action]:
    """Return the actions that fit a footer of `width` columns, the important ones first to stay."""
    shown = [action for action in REGISTRY[screen] if action.rank and action.name not in hidden]
    while shown and sum(len(action.footed) + len(action.label) + 3 for action in shown) > width:
        worst = max(action.rank for action in shown)
        last = max(i for i, action in enumerate(shown) if action.rank == worst)
        del shown[last]
    return shown
