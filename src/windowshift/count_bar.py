"""A bar of progress for Python's own calls: in a notebook or a terminal, once something takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from windowshift.core.contract import sanitise
from windowshift.core.contract.progress import Progress
from windowshift.core.run import run

DELAY_SECONDS = 1.0
"""What is over sooner has no bar."""
DRAW_SECONDS = 0.5
"""A bar is drawn no more often."""

P = ParamSpec("P")
R = TypeVar("R")
Show = Callable[[int, int, str], None]
"""Takes how many are done, of how many, and what is in work."""


def watched() -> bool:
    """Whether somebody looks on: stderr is a terminal, or this is a notebook's kernel."""
    if sys.stderr.isatty():
        return True
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def count_bar(unit: str, label: str, *, show: bool | None = None) -> Iterator[Show]:
    """Yield a function that shows how far something is.

    Args:
        unit: what is counted.
        label: what goes on.
        show: None shows the bar where somebody looks on.
    """
    if not (watched() if show is None else show):
        yield lambda *_: None
        return
    # tqdm and not rich, which the command line has: in a notebook rich's bar needs ipywidgets.
    from tqdm import tqdm

    look = f"{{desc}} |{{bar:20}}| {{n_fmt}}/{{total_fmt}} {unit}, {{elapsed}}<{{remaining}}{{postfix}}"
    often = {"delay": DELAY_SECONDS, "mininterval": DRAW_SECONDS}
    with tqdm(desc=sanitise.line(label, 60), bar_format=look, leave=False, **often) as bar:

        def shown(done: int, total: int, now: str) -> None:
            bar.total = total
            if now:
                bar.set_postfix_str(sanitise.line(now, 60), refresh=False)
            bar.update(done - bar.n)

        yield shown


def with_bar(call: Callable[P, R]) -> Callable[P, R]:
    """A call that takes `observe`, with a bar of its cells where nothing else observes and somebody looks on."""

    @wraps(call)
    def shown(*args: P.args, **given: P.kwargs) -> R:
        if "observe" in given or not watched():
            return call(*args, **given)
        with count_bar("cells", "run") as show:

            def observe(progress: Progress) -> None:
                show(progress.cells_done, progress.cells, progress.running[0] if progress.running else "")

            given["observe"] = observe
            return call(*args, **given)

    return shown


run_spec = with_bar(run.run_spec)
