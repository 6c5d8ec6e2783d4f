"""Starting, making and deleting experiments: what the list's keys do, in workers and after questions."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.app import SuspendNotSupported

from windowshift.core.contract.errors import WindowshiftError
from windowshift.core.run.spawn import launch
from windowshift.tui.read.snapshot import ExperimentView
from windowshift.tui.screens.list_screen import ListScreen
from windowshift.tui.text.status import alive

if TYPE_CHECKING:
    from windowshift.tui.read import spec_file


class ExperimentCommands(ListScreen[tuple[ExperimentView, ...]]):
    """The part of the list of experiments that changes something."""

    @property
    def selected(self) -> ExperimentView | None:
        """The experiment under the cursor."""
        raise NotImplementedError

    def _say(self, sentence: str, *, bad: bool = False) -> None:
        """Say something from a worker thread."""
        self.app.call_from_thread(self.shift.say, sentence, bad=bad)

    # -- start ----------------------------------------------------------------------------------

    def action_start(self) -> None:
        """Start the run of the experiment, or go on with it."""
        view = self.selected
        if view is None:
            return
        if alive(view.run, self.shift.now()):
            self.shift.say(f"{view.row.name} runs already; P pauses it, X cancels it.")
            return
        if view.row.state == "done":
            self.shift.say(f"{view.row.name} is done: there is nothing left to run.")
            return
        self.shift.say(f"Planning {view.row.name} …")
        self._plan_again(view)

    @work(thread=True, exit_on_error=False, group="start")
    def _plan_again(self, view: ExperimentView) -> None:
        from windowshift.tui.read import spec_file

        try:
            text = self.shift.store.read(lambda reader: reader.spec_text(view.row.id))
            path = spec_file.kept_spec(self.shift.workspace, view.row.name, text)
            planned = spec_file.plan(path, self.shift.workspace)
        except WindowshiftError as error:
            self._say(f"{view.row.name} cannot go on from here: {error}", bad=True)
        else:
            self.app.call_from_thread(self._ask_start, path, planned)

    def _ask_start(self, path: Path, planned: spec_file.Planned) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._launch(path, planned.experiment)

        self.shift.ask("Start?", f"{planned.sentence}. Start it? It runs on without the screen; y yes, n no.", answered)

    @work(thread=True, exit_on_error=False, group="start")
    def _launch(self, path: Path, experiment: str) -> None:
        try:
            number = launch(path, self.shift.workspace)
        except OSError as error:
            self._say(f"The run cannot be started: {error.strerror or error}", bad=True)
        else:
            self._say(f"Started {experiment} as process {number}; what it says is in logs/launch.log")

    # -- new ------------------------------------------------------------------------------------

    def action_new(self) -> None:
        """Make an experiment from a template."""
        from windowshift.core.spec.template import templates
        from windowshift.tui.read import spec_file

        known = {template.name: template for template in templates()}

        def chosen(name: str | None) -> None:
            if name is None:
                return
            try:
                path = spec_file.new_spec(self.shift.workspace, name, known[name].text)
            except WindowshiftError as error:
                self.shift.say(str(error), bad=True)
            else:
                self.edit(path)

        offered = [(template.name, template.summary) for template in known.values()]
        self.shift.open("choice", "New experiment from", offered, answered=chosen)

    def edit(self, path: Path) -> None:
        """Open a spec in the user's editor; afterwards check it."""
        import subprocess

        from windowshift.tui.read import spec_file

        try:
            command = spec_file.editor()
            with self.app.suspend():
                subprocess.run([*command, str(path)], check=False)
        except SuspendNotSupported:
            self.shift.say(f"No editor can be opened here: edit {path}, then  windowshift run {path}", bad=True)
            return
        except (WindowshiftError, OSError) as error:
            self.shift.say(f"{error}; the file is {path}", bad=True)
            return
        self.app.refresh()
        self.shift.say(f"Planning {path.name} …")
        self._check(path)

    @work(thread=True, exit_on_error=False, group="start")
    def _check(self, path: Path) -> None:
        from windowshift.tui.read import spec_file

        try:
            planned = spec_file.plan(path, self.shift.workspace)
        except WindowshiftError as error:
            self.app.call_from_thread(self._wrong, path, str(error))
        else:
            self.app.call_from_thread(self._ask_start, path, planned)

    def _wrong(self, path: Path, sentence: str) -> None:
        def answered(again: bool | None) -> None:
            if again:
                self.edit(path)

        self.shift.open("problem", f"{path.name} is not right yet", sentence, answered=answered)

    # -- delete ---------------------------------------------------------------------------------

    def action_delete(self) -> None:
        """Delete the experiment, after a question."""
        view = self.selected
        if view is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._delete(view)

        self.shift.ask(
            "Delete?",
            f"Delete the experiment “{view.row.name}” with its {view.row.cells_total} cells, completions and adapters? "
            "What another experiment shares stays. This cannot be undone; y yes, n no.",
            answered,
        )

    @work(thread=True, exit_on_error=False, group="delete")
    def _delete(self, view: ExperimentView) -> None:
        from windowshift.core.store.artifact_folder import ArtifactFolder
        from windowshift.core.store.lock import hold
        from windowshift.core.store.writer import Writer

        workspace = self.shift.workspace
        try:
            with hold(workspace, f"delete {view.row.name}"), closing(Writer(workspace)) as writer:
                removed = writer.delete_experiment(view.row.id)
        except WindowshiftError as error:
            self._say(str(error).replace("; stop it, or add --wait to wait for it", ": stop that run first"), bad=True)
            return
        artifacts = ArtifactFolder(workspace)
        for identifier in removed:
            artifacts.delete(identifier)
        self._say(f"Deleted {view.row.name}: {len(removed)} jobs that no other experiment shares.")
