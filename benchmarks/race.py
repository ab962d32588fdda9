"""Start and warm up contestants and measure them in turn, so that noise affects all equally."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from crossbench.measure.probes import environment
from crossbench.report.tables import markdown_table
from crossbench.wording import number

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A command whose process implements `benchmarks.contestants.protocol`."""

    name: str
    command: Sequence[str]


def start(command: Sequence[str], log: Path) -> subprocess.Popen[str]:
    """Start a process of this repository that reads and writes text; its errors go to `log`."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("a"),
        encoding="utf-8",
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )


class Race:
    """Starts contestants; `missing` has the reason for each one that does not start."""

    def __init__(self, contestants: Sequence[Contestant], log: Path) -> None:
        self.missing: dict[str, str] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}
        for contestant in contestants:
            print(f"starting {contestant.name}", file=sys.stderr, flush=True)
            process = start(contestant.command, log)
            assert process.stdout is not None
            if process.stdout.readline():
                self._running[contestant.name] = process
            else:
                self.missing[contestant.name] = f"did not start, see {log}"

    def run(self, rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
        """Return every contestant's measurements, one per round."""
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in self._running}
        for turn in range(rounds):
            print(f"round {turn + 1}/{rounds}", file=sys.stderr, flush=True)
            for name, process in self._running.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{seconds}\n")
                process.stdin.flush()
                taken[name].append(json.loads(process.stdout.readline()))
        return taken

    def close(self) -> None:
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def ratios(
    taken: Mapping[str, Sequence[Mapping[str, float]]],
    ours: str,
    peer: str,
    key: str = "pairs_per_s",
) -> tuple[float, float, float]:
    """Return the median, minimum and maximum ratio of ours to the peer over the rounds."""
    each = [a[key] / b[key] for a, b in zip(taken[ours], taken[peer], strict=True)]
    return median(each), min(each), max(each)


def speed_table(taken: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return a table with the median and range of each contestant's pairs/s."""
    rows = []
    for name, rounds in taken.items():
        speeds = [entry["pairs_per_s"] for entry in rounds]
        spread = f"{number(min(speeds))} to {number(max(speeds))}"
        rows.append((name, number(median(speeds)), spread))
    return markdown_table(("", "pairs/s (median)", "rounds"), rows, "lrr")


def machine() -> str:
    """Return one line that describes this machine."""
    facts = environment()
    flags = " ".join(facts["cpu_flags"])
    return f"{facts['cores_usable']} cores of {facts['cpu']} ({flags}), {facts['os']}"
