"""`python -m crossbench.report FOLDER`: write the reports of a sweep or of a cell again.

FOLDER is outputs/SWEEP, or a cell in it. The reports are made from the results on disk, so this
also works after a sweep whose process was killed. Nothing is measured, and no result is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.report.cell import write_cell_report
from crossbench.report.sweep import read_run, read_runs, write_sweep_report
from crossbench.report.terminal import terminal_answer, terminal_table
from crossbench.results import RESULT_FILE, cell_folders
from crossbench.system.command import only_argument, run_command
from crossbench.wording import counted

HELP = """\
python -m crossbench.report FOLDER: write the reports of a sweep or of a cell
again, from the results on disk.

  python -m crossbench.report outputs/SWEEP
  python -m crossbench.report outputs/SWEEP/0             of one cell

This also works after a sweep whose process was killed. Nothing is measured, and
no result is changed.
More: docs/reading-results.md"""
_USAGE = "usage: python -m crossbench.report outputs/SWEEP"


def main(arguments: Sequence[str]) -> None:
    """Write the reports, and print the table and the answer of the sweep.

    Raises:
        ResultError: the folder has no result.
    """
    folder = Path(only_argument(arguments, HELP, _USAGE))
    is_cell = (folder / RESULT_FILE).is_file()
    cells = [folder] if is_cell else _cells(folder)
    finished = [cell for cell in cells if (cell / RESULT_FILE).is_file()]
    if not finished:
        raise ResultError(
            f"{folder} has no cell with a {RESULT_FILE}: give the folder of a sweep, such as "
            "outputs/SWEEP, or of a cell in it"
        )
    for cell in finished:
        path = write_cell_report(cell)
    runs = [read_run(folder)] if is_cell else read_runs(folder)
    if not is_cell:
        path = write_sweep_report(folder)
    print(terminal_table([run.result for run in runs]))
    if answer := terminal_answer(runs):
        print(f"\n{answer}")
    if missing := len(cells) - len(finished):
        print(f"{counted(missing, 'cell')} without a result: resume=FOLDER measures the rest")
    print(f"report: {path}")


def _cells(folder: Path) -> list[Path]:
    return cell_folders(folder) if folder.is_dir() else []


if __name__ == "__main__":
    run_command(main)
