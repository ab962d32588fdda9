"""`python -m crossbench.selfcheck`: how much results vary on this machine, and what sweeps can see.

One cell is measured again and again in fresh processes, twice in each block, beside one that is
known to be slower. The command prints the spread from run to run, the least differences that sweeps
can see, and how often they call equal cells different. It stores the spread under `cache_dir`,
where reports find it for cells that ran once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from crossbench.dashboard.journal import NoJournal
from crossbench.errors import ConfigError
from crossbench.report.allowance import StoredCheck, store_check
from crossbench.report.axes import full_label
from crossbench.report.cell import REPORT_FILE
from crossbench.report.selfcheck import LEAST_BLOCKS, Block, Findings, find
from crossbench.report.selfcheck_text import markdown_report, terminal_text
from crossbench.results import RunResult, Status
from crossbench.runner.checks import check_config, longest_s
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import in_shell
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import composed_config
from crossbench.sweeps.cell import run_cell
from crossbench.sweeps.finish import EXIT_FAILED
from crossbench.sweeps.folder import absolute, take_new
from crossbench.sweeps.order import block_order
from crossbench.sweeps.progress import SteadyConsole, cell_progress
from crossbench.sweeps.unsaved import unsaved_files
from crossbench.system.credentials import hide_argument
from crossbench.system.files import atomic_write
from crossbench.system.stop_signals import EXIT_INTERRUPTED
from crossbench.wording import counted, duration

OWN_KEYS = ("blocks", "slower")
_CELLS = "cells"  # not directly in the folder: the runs are no sweep that others would list
_SERVICE_KEY, _MODELLESS = "backend.service_us_per_pair", "noop"
console = SteadyConsole(stderr=True, emoji=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of conf/selfcheck.yaml; `slower` is a share."""

    blocks: int
    slower: float
    command: str


def read_settings(own: Sequence[str], command: str) -> Settings:
    """Return the settings, with those of the command line (`blocks=12`) in place of the defaults.

    Raises:
        ConfigError: a value cannot be used.
    """
    values = OmegaConf.load(conf_dir() / "selfcheck.yaml")
    try:
        values = OmegaConf.merge(values, OmegaConf.from_dotlist(list(own)))
        blocks, slower = values.blocks, values.slower
    except Exception as error:  # OmegaConf raises many types for a text that it cannot parse
        raise ConfigError(f"{' '.join(own)} cannot be read: give for example blocks=8") from error
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < LEAST_BLOCKS:
        raise ConfigError(
            f"blocks must be a whole number, {LEAST_BLOCKS} or more, got {blocks!r}: give for "
            "example blocks=8"
        )
    if isinstance(slower, bool) or not isinstance(slower, int | float) or not 0 < slower < 1:
        raise ConfigError(
            f"slower must be a share between 0 and 1, got {slower!r}: give for example "
            "slower=0.05, which is 5 %"
        )
    return Settings(blocks, float(slower), command)


def default_choices(given: Sequence[str]) -> list[str]:
    """Return the overrides of conf/selfcheck.yaml that suit the given ones."""
    values = OmegaConf.load(conf_dir() / "selfcheck.yaml")
    chosen = [word.partition("=")[2] for word in given if word.startswith("backend=")]
    noop = list(values.noop) if chosen in ([], [_MODELLESS]) else []
    return [*values.cell, *noop]


def slower_config(config: CellConfig, slower: float) -> CellConfig | None:
    """Return the config of the slower cell; None if the backend has no time per pair to change."""
    service = config.value(_SERVICE_KEY)
    if not service:
        return None
    backend = {**config.section("backend"), "service_us_per_pair": service * (1 + slower)}
    return CellConfig({**config.document, "backend": backend})


def selfcheck(settings: Settings, composed: DictConfig) -> None:
    """Measure the blocks, print and store the findings, and exit with the status of the check.

    Raises:
        CrossbenchError: the cell cannot be measured; nothing was started.
    """
    cell = composed_config(composed)
    configs = [cell, cell]
    if (other := slower_config(cell, settings.slower)) is not None:
        configs.append(other)
    longest = sum(longest_s(check_config(config)) for config in configs) * settings.blocks
    folder = absolute(str(cell.value("outputs_dir")), "outputs_dir")
    taken = take_new(folder / f"selfcheck_{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}")
    console.tell(
        f"{counted(settings.blocks, 'block')} of {counted(len(configs), 'run')}: requests are sent "
        f"for at most {duration(longest)}"
    )
    try:
        blocks = measure_blocks(configs, settings.blocks, taken.path)
        label, margin = full_label(cell), float(cell.value("report.margin"))
        seed = int(cell.value("seed"))
        findings = find(label, blocks, settings.blocks, settings.slower, margin, seed)
        sys.exit(finish(findings, cell, settings, taken.path))
    finally:
        taken.release()


def measure_blocks(configs: Sequence[CellConfig], blocks: int, folder: Path) -> list[Block]:
    """Measure every config once per block, each in a fresh process; Ctrl-C ends it early.

    A block that was not completed is left out. The order inside the blocks is that of sweeps.
    """
    seed = int(configs[0].value("seed"))
    found: list[Block] = []
    for block in range(blocks):
        runs: dict[int, RunResult] = {}
        for place, cell in enumerate(block_order(len(configs), block, seed)):
            number = block * len(configs) + place
            try:
                runs[cell] = _measure(configs, cell, number, blocks, folder)
            except KeyboardInterrupt:
                return found
        found.append(Block((runs[0], runs[1]), runs.get(2)))
    return found


def _measure(
    configs: Sequence[CellConfig], cell: int, number: int, blocks: int, folder: Path
) -> RunResult:
    name = ("A", "A again", "slower")[cell]
    place = f"run {number + 1}/{blocks * len(configs)} {name}"
    run_folder = folder / _CELLS / str(number)
    with cell_progress(place, configs[cell]) as progress:
        result = run_cell(configs[cell], run_folder, progress, NoJournal())
    if result.error:
        console.print(f"[yellow]{place}: {result.status}[/]: {escape(result.error)}")
    return result


def finish(findings: Findings, cell: CellConfig, settings: Settings, folder: Path) -> int:
    """Print the findings, store the spread, write the report; return the exit status."""
    stored = _store(findings, cell, settings)
    print(terminal_text(findings))
    print(stored)
    unsaved_files.write()
    unsaved_files.tell_lost(settings.command)
    with atomic_write(folder / REPORT_FILE) as partial:
        partial.write_text(markdown_report(findings, settings.command, stored), "utf-8")
    console.print(escape(f"report: {folder / REPORT_FILE}"))
    if findings.interrupted:
        return EXIT_INTERRUPTED
    failed = any(run.status is not Status.FINISHED for run in findings.runs)
    return EXIT_FAILED if failed or not findings.metrics else 0


def _store(findings: Findings, cell: CellConfig, settings: Settings) -> str:
    """Store the spread for reports; return a sentence that says so, or why not."""
    if findings.interrupted:
        return "The spread was not stored, because the check was interrupted."
    if not findings.metrics:
        return "No spread was stored."
    environment = findings.equal_runs[0].environment
    check = StoredCheck(
        backend=str(cell.value("backend")),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=settings.command,
        runs=len(findings.equal_runs),
        versions=environment.get("versions", {}),
        git_commit=environment.get("git_commit"),
        spreads={found.metric.name: found.spread for found in findings.metrics},
    )
    cache = absolute(str(cell.value("cache_dir")), "cache_dir")
    return f"Stored for reports: {store_check(cache, environment, check)}"


def main() -> None:
    """Run the command."""
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit("crossbench: selfcheck measures one cell again and again: leave out -m")
    command = in_shell("python", "-m", "crossbench.selfcheck", *map(hide_argument, sys.argv[1:]))
    own = [word for word in sys.argv[1:] if word.partition("=")[0] in OWN_KEYS]
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in own]
    try:
        settings = read_settings(own, command)
    except ConfigError as error:
        sys.exit(f"crossbench: {error}")
    choices = ["hydra/help=selfcheck", *NO_CELLS, *default_choices(sys.argv[1:])]
    launch(partial(selfcheck, settings), choices)


if __name__ == "__main__":
    main()
