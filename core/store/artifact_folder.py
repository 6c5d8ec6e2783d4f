"""Artifacts in the workspace's folder: the implementation of `Artifacts` for one machine, or a shared disk."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windowshift.core.contract.artifacts import ROOT, DamagedError, checked_id, files_of, is_whole, split_place
from windowshift.core.contract.errors import StoreError
from windowshift.core.contract.whole_file import replacing_file

FILES = "files.json"
"""Beside a job's artifacts: the size, the time of change and the SHA-256 of each of their files."""
_BLOCK = 1 << 20
_MADE = re.compile(r"[0-9a-f]{20}")
"""An id as `core.plan.jobs.job_hash` makes them: no folder of a person's own is called so."""

_Stat = tuple[int, int]
"""Size in bytes, and time of change in nanoseconds."""


class ArtifactFolder:
    """Keeps artifacts under ``artifacts/JOB/``, and knows when one is no longer what was put.

    Args:
        workspace: the folder of the store; it may be moved, places stay valid.
        writes: whether what an earlier version left unrecorded may be recorded; screens and reports only look.
    """

    def __init__(self, workspace: Path, *, writes: bool = False) -> None:
        self._root, self._writes = workspace / ROOT, writes
        self._whole: dict[Path, _Stat] = {}  # files whose content was compared, as they were then

    def folder(self, job: str) -> Path:
        """As `Artifacts.folder`."""
        return self._root / checked_id(job)

    def cache(self) -> Path:
        """A folder for what is worth keeping between runs, and belongs to no job."""
        return self._root

    def put(self, job: str, path: str) -> str:
        """As `Artifacts.put`; what lies elsewhere on this machine is copied."""
        folder = self.folder(job)
        source = Path(path)
        if not source.is_absolute():
            split_place(path)  # refuses what is neither
            return path
        if not source.exists():
            raise StoreError(f"there is nothing at {source} that could be kept: run the same command again")
        kept = source if source.is_relative_to(folder) else folder / source.name
        if kept != source:
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, kept)
        name = kept.relative_to(folder).as_posix()
        self._record(folder, name)
        return f"{ROOT}/{job}/{name}"

    def get(self, place: str) -> str:
        """As `Artifacts.get`; each file's content is read once a process, and again when it changed."""
        found = self._find(place)
        if found is None:
            return place
        job, name, path = found
        problem = self._problem(job, name, path, content=True)
        if problem:
            raise DamagedError(job, place, f"{path} {problem}")
        return str(path)

    def exists(self, place: str) -> bool:
        """As `Artifacts.exists`; the content of a file whose time of change is another one is read, too."""
        found = self._find(place)
        return found is None or self._problem(*found, content=False) is None

    def discard(self, place: str) -> None:
        """As `Artifacts.discard`."""
        found = self._find(place)
        if found is None:
            return
        job, name, path = found
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        known = self._recorded(self.folder(job))
        if known.pop(name, None) is not None:
            self._note(self.folder(job), known)

    def delete(self, job: str) -> None:
        """As `Artifacts.delete`."""
        folder = self.folder(job)
        if folder.is_symlink():
            folder.unlink()  # never what it points to
        elif self._leads_out() and not _MADE.fullmatch(job):
            raise StoreError(
                f"{self._root} is a link to {self._root.resolve()}, and '{job}' is no id that windowshift made: "
                "nothing there was removed"
            )
        else:
            shutil.rmtree(folder, ignore_errors=True)
        self._whole = {path: stat for path, stat in self._whole.items() if not path.is_relative_to(folder)}

    def _find(self, place: str) -> tuple[str, str, Path] | None:
        """The job, the name below its folder and the path of a place; None for a remote name."""
        split = split_place(place)
        if split is None:
            return None
        job, parts = split
        path = self.folder(job).joinpath(*parts)
        root = self._root.resolve()
        for file in (path, *(path.rglob("*") if path.is_dir() else ())):
            if file.is_symlink() or file == path:
                if not file.resolve().is_relative_to(root):
                    raise StoreError(f"{file} is a link that leads out of the artifacts: remove it")
            elif not file.is_dir() and not file.is_file():
                raise StoreError(f"{file} is neither a file nor a folder: remove it")
        return job, "/".join(parts), path

    def _leads_out(self) -> bool:
        """Whether the artifacts lie elsewhere, on a larger disk perhaps."""
        return not self._root.resolve().is_relative_to(self._root.parent.resolve())

    def _problem(self, job: str, name: str, path: Path, *, content: bool) -> str | None:
        """What is wrong with an artifact; None where it is whole."""
        if not path.exists():
            return "is gone"
        recorded = self._recorded(self.folder(job)).get(name)
        if recorded is None:  # of an earlier version, or its record is gone: its own structure is all there is
            broken = next((one for one in files_of(path) if not is_whole(one)), None)
            if broken is not None:
                return f"is damaged: {broken.name} is cut off, or no longer what its name says"
            if self._writes:
                self._record(self.folder(job), name)
            return None
        for relative, (size, changed, digest) in recorded.items():
            file = path / relative if relative else path
            try:
                stat = file.stat()
            except OSError:
                return f"is damaged: {file.name} is gone"
            if stat.st_size != size:
                return f"is damaged: {file.name} has {stat.st_size:,} bytes in place of {size:,}"
            now = (stat.st_size, stat.st_mtime_ns)
            if self._whole.get(file) != now and (content or stat.st_mtime_ns != changed):
                if _digest(file) != digest:
                    return f"is damaged: the content of {file.name} has changed"
                self._whole[file] = now
        return None

    def _recorded(self, folder: Path) -> dict[str, dict[str, tuple[int, int, str]]]:
        """What was put, by name and by file below it; what cannot be read was not recorded."""
        try:
            found: dict[str, Any] = json.loads((folder / FILES).read_text(encoding="utf-8"))
            return {
                name: {
                    file: (int(one["bytes"]), int(one["changed"]), str(one["sha256"])) for file, one in files.items()
                }
                for name, files in found.items()
            }
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}

    def _record(self, folder: Path, name: str) -> None:
        path = folder / name
        files: dict[str, tuple[int, int, str]] = {}
        for file in files_of(path):
            stat = file.stat()
            digest = _digest(file)
            self._whole[file] = (stat.st_size, stat.st_mtime_ns)
            relative = "" if file == path else file.relative_to(path).as_posix()
            files[relative] = (stat.st_size, stat.st_mtime_ns, digest)
        self._note(folder, {**self._recorded(folder), name: files})

    def _note(self, folder: Path, known: Mapping[str, Mapping[str, tuple[int, int, str]]]) -> None:
        content = {
            name: {
                file: {"bytes": size, "changed": changed, "sha256": digest}
                for file, (size, changed, digest) in files.items()
            }
            for name, files in known.items()
        }
        with replacing_file(folder / FILES) as partial:
            partial.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
