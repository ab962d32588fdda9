"""`python -m crossbench.trace CELL`: print the arrivals of a cell as a trace for load=trace.

CELL is the folder of a cell, such as outputs/SWEEP/0. The trace is CSV with the time when each
request was due, in seconds since the start of the measurement, and its pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.load.trace import trace_lines
from crossbench.results import RECORDS_FILE, load_records
from crossbench.system.command import only_argument, run_command

HELP = """\
python -m crossbench.trace CELL: print the arrivals of a cell as a trace.

  python -m crossbench.trace outputs/SWEEP/0 > FILE
  python -m crossbench load=trace load.path=FILE          sends them again

CELL is the folder of a cell. The trace is CSV with the time when each request
was due, in seconds since the start of the measurement, and its pairs.
More: docs/configuration.md#loads"""
_USAGE = (
    "usage: python -m crossbench.trace outputs/SWEEP/CELL > FILE; then load=trace load.path=FILE"
)


def main(arguments: Sequence[str]) -> None:
    """Print the trace of the cell.

    Raises:
        ResultError: the folder has no request records, or they cannot be read.
    """
    folder = Path(only_argument(arguments, HELP, _USAGE))
    records = load_records(folder)
    if not records:
        raise ResultError(f"{folder} has no {RECORDS_FILE}: give the folder of a cell")
    for line in trace_lines(records):
        print(line)


if __name__ == "__main__":
    run_command(main)
