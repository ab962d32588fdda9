"""`python -m crossbench.trace CELL`: print the arrivals of a cell as a trace for load=trace.

CELL is the folder of a cell, such as outputs/SWEEP/0. The trace is CSV with the time when each
request was due, in seconds since the start of the measurement, and its pairs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from crossbench.errors import ResultError
from crossbench.load.trace import trace_lines
from crossbench.results import RECORDS_FILE, load_records
from crossbench.system.command import command, exit_with_version

_USAGE = (
    "usage: python -m crossbench.trace outputs/SWEEP/CELL > FILE; then load=trace load.path=FILE"
)


def main(arguments: Sequence[str]) -> None:
    """Print the trace of the cell.

    Raises:
        ResultError: the folder has no request records, or they cannot be read.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        asked = arguments and arguments[0] in ("-h", "--help")
        print(__doc__ if asked else _USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    records = load_records(Path(arguments[0]))
    if not records:
        raise ResultError(f"{arguments[0]} has no {RECORDS_FILE}: give the folder of a cell")
    for line in trace_lines(records):
        print(line)


if __name__ == "__main__":
    exit_with_version(sys.argv[1:])
    with command():
        try:
            main(sys.argv[1:])
        except ResultError as error:
            sys.exit(f"crossbench: {error}")
