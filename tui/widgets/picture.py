"""A figure on screen: drawn in a worker for the size it has, so that keys never wait for it."""

from __future__ import annotations

from pathlib import Path

from textual.message import Message
from textual.strip import Strip

from windowshift.core.contract import sanitise
from windowshift.core.report.figure import Plot
from windowshift.tui.text.pieces import Pieces
from windowshift.tui.widgets.inked import Drawn, few_colours, ink_of

Shape = tuple[Plot, int, int, str]
"""What a drawing is of: figure, width, height, theme."""


class Picture(Drawn):
    """Shows a figure; what was drawn before stays until the next one is ready.

    Args:
        workspace: where it is logged when a drawing fails.
        id: of the widget.
    """

    DEFAULT_CSS = "Picture { height: 1fr; width: 1fr; }"

    class Ready(Message):
        """A drawing was made."""

        def __init__(self, shape: Shape, lines: list[Pieces]) -> None:
            super().__init__()
            self.shape = shape
            self.lines = lines

    def __init__(self, workspace: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._workspace = workspace
        self.plot: Plot | None = None
        self._lines: list[Pieces] = []
        self._asked: Shape | None = None

    def show(self, plot: Plot | None) -> None:
        """Show a figure."""
        self.plot = plot
        self._ask()

    @property
    def text(self) -> str:
        """What it says, without styles."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._ask()

    def notify_style_update(self) -> None:
        """Draw in the colours of another theme."""
        super().notify_style_update()
        self._ask()

    def _ask(self) -> None:
        width, height = self.size
        if self.plot is None or not self.is_running or not width or not height:
            return
        ink, few = ink_of(self), few_colours(self)
        shape = (self.plot, width, height, ink.name)
        if shape == self._asked:
            return
        self._asked = shape

        def work() -> None:
            # plotext loads here, in the thread.
            from windowshift.tui.widgets.plot_terminal import draw

            try:
                lines = draw(shape[0], width, height, ink, few_colours=few)
            except Exception as error:  # a figure that fails must not take the app down
                from windowshift.tui.read import error_log

                place = error_log.note(self._workspace, error)
                lines = [
                    [(f" This figure failed: {sanitise.line(f'{type(error).__name__}: {error}', 200)}", ink.bad)],
                    [(f" log: {place}", ink.dim)],
                ]
            self.post_message(self.Ready(shape, lines))

        self.run_worker(work, thread=True, group="picture", exclusive=True, exit_on_error=False)

    def on_picture_ready(self, message: Ready) -> None:
        """Put it on screen, unless another one was asked for meanwhile."""
        message.stop()
        if message.shape == self._asked:
            self._lines = message.lines
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw a line."""
        return self.drawn(self._lines[y] if y < len(self._lines) else [])
