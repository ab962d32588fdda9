"""Files of a run that could not be written: they are kept in memory and offered again.

That is tried at the end of each cell and at the end of the run. A full disk is told once.
"""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from crossbench.results import RESULT_FILE, RunResult, load_result, parse_result
from crossbench.sweeps.services import console
from crossbench.system.command import os_error_message
from crossbench.system.files import NotWritten, write_file
from crossbench.wording import counted, join_first


class UnsavedFiles:
    """The unwritten files of this process's run, and the cells that could not be measured."""

    def __init__(self) -> None:
        self._files: dict[Path, bytes] = {}
        self._told = False
        self._not_measured: set[Path] = set()

    def keep(self, error: NotWritten) -> None:
        """Keep the content of a file that could not be written."""
        self._files[error.path] = error.content
        self.tell(error)

    def forget(self, path: Path) -> None:
        """Drop a file, which was written after all."""
        self._files.pop(path, None)

    def tell(self, error: OSError) -> None:
        """Say that files cannot be written, once in a run."""
        if self._told:
            return
        self._told = True
        console.print(
            f"[yellow]results:[/] {escape(os_error_message(error))} (what is measured is kept in "
            "memory, and written if that is possible at the end of a cell or of the run)"
        )

    def not_measured(self, cell: Path, error: OSError) -> None:
        """Note that a cell could not be measured, because its folder could not be written."""
        self._not_measured.add(cell)
        self.tell(error)

    def of(self, cell: Path) -> list[Path]:
        """Return the unwritten files of a cell."""
        return [path for path in self._files if path.parent == cell]

    def result_of(self, cell: Path) -> RunResult:
        """Return the result of a cell, from memory or from its folder.

        Raises:
            ResultError: it has none.
        """
        content = self._files.get(cell / RESULT_FILE)
        return load_result(cell) if content is None else parse_result(content, cell / RESULT_FILE)

    def write(self) -> None:
        """Try again to write all files; those that still cannot be written stay in memory."""
        for path, content in list(self._files.items()):
            try:
                write_file(path, content)
            except NotWritten:
                continue
            self.forget(path)

    def tell_lost(self, resume: str) -> bool:
        """Say at the end of the run what is lost; return whether something is.

        `resume` is the command that measures again.
        """
        is_lost = bool(self._files or self._not_measured)
        if self._files:
            names = [f"{path.parent.name}/{path.name}" for path in self._files]
            console.print(
                f"[yellow]results:[/] {counted(len(names), 'file')} could not be written and will "
                f"be lost: {escape(join_first(names))}"
            )
        elif self._told and not self._not_measured:
            console.print("what could not be written before is written now")
        if self._not_measured:
            cells = counted(len(self._not_measured), "cell")
            console.print(
                f"[yellow]results:[/] {cells} could not be measured, as nothing could be written; "
                f"when there is space: {escape(resume)}"
            )
        self._files.clear()
        self._not_measured.clear()
        self._told = False
        return is_lost


# Hydra calls the hooks of a sweep and its cells separately, so they share this object
unsaved_files = UnsavedFiles()
