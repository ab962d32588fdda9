"""`python -m crossbench.compare A B`: is B worse than A? For a person, or for a CI job.

A and B are the folders of sweeps or of cells, or, with --tracking-uri, sweeps in MLflow. The exit
status is 3 if B regressed (see docs/comparing.md), 1 if the two cannot be compared, 2 for a wrong
option, and 0 otherwise, also if nothing can be told.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from crossbench.errors import ConfigError, ResultError
from crossbench.measure.contrasts import Allowance
from crossbench.report.allowance import read_allowance
from crossbench.report.cell import REPORT_FILE
from crossbench.report.comparison import Comparison, judge_pairs
from crossbench.report.comparison_text import markdown_report, terminal_text
from crossbench.report.pairing import Match, contradictions, explanations, pair_cells
from crossbench.results import RESULT_FILE, RunResult, Status, cell_folders, load_result
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import in_shell
from crossbench.settings.places import conf_dir, outputs_dir
from crossbench.settings.run import default_tracker
from crossbench.settings.stored_plan import read_plan
from crossbench.sweeps.folder import take_new
from crossbench.system.addresses import bypass_proxy
from crossbench.system.command import run_command
from crossbench.system.credentials import hide_argument
from crossbench.system.files import atomic_write
from crossbench.tracking.mlflow_results import stored_results
from crossbench.tracking.mlflow_store import MlflowTracker
from crossbench.wording import counted

EXIT_REGRESSION = 3


def compare(given: argparse.Namespace, as_typed: str) -> Comparison:
    """Read both, compare them, print the verdicts and write the report.

    Raises:
        CrossbenchError: one of the two cannot be read, or they cannot be compared.
    """
    if _is_same_folder(given.a, given.b):
        raise ConfigError(f"A and B are the same folder, {given.a}: give two sweeps")
    sides = [read_side(name, given.tracking_uri, given.experiment) for name in (given.a, given.b)]
    paired = pair_cells(sides[0], sides[1], Match(given.match))
    wrong = contradictions(paired.pairs)
    if wrong and not given.force:
        listed = "; ".join(f"{item.name} ({item.a} in A, {item.b} in B)" for item in wrong)
        raise ConfigError(
            f"a comparison would say nothing, because these differ: {listed}. Give two sweeps of "
            "the same model and data, or --force to compare them anyway"
        )
    margin, spread = (report_setting(sides[1], key) for key in ("margin", "spread"))
    threshold = margin if given.threshold is None else given.threshold
    cells, sources = judge_pairs(
        paired.pairs, (_allowance(sides[0], spread), _allowance(sides[1], spread)),
        margin, threshold,
    )  # fmt: skip
    comparison = Comparison(
        names=(_name(given.a), _name(given.b)),
        started=(_started(sides[0]), _started(sides[1])),
        cells=cells,
        paired=paired,
        contradictions=tuple(wrong),
        explanations=tuple(explanations(paired.pairs)),
        sources=sources,
        missing=() if given.common else paired.only_a,
        incomplete=tuple(filter(None, map(_incomplete, "AB", (given.a, given.b), sides))),
        margin=margin,
        threshold=threshold,
    )
    folder = _output_folder(given.output)
    with atomic_write(folder / REPORT_FILE) as partial:
        partial.write_text(markdown_report(comparison, as_typed), "utf-8")
    print(terminal_text(comparison))
    print(f"\nreport: {folder / REPORT_FILE}")
    return comparison


def read_side(name: str, tracking_uri: str | None, experiment: str | None) -> list[RunResult]:
    """Return the results of a sweep's or a cell's folder, or of a sweep in MLflow.

    A cell without a readable result is a failed one, whose error says why.

    Raises:
        ResultError: there is no such folder, or it has no cell.
        TrackingError: the store cannot be reached or has no such sweep.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        cells = [folder] if (folder / RESULT_FILE).exists() else cell_folders(folder)
        if not cells:
            raise ResultError(f"{name} has no cell: give the folder of a sweep, or of a cell")
        return [_result(cell) for cell in cells]
    if tracking_uri is None:
        raise ResultError(
            f"{name} is not a folder: give the folder of a sweep, outputs/SWEEP, or of a cell. For "
            "a sweep in MLflow, give its name or the id of its parent run, and --tracking-uri URI"
        )
    values = {"uri": tracking_uri, **({"experiment": experiment} if experiment else {})}
    bypass_proxy(tracking_uri)
    tracker: MlflowTracker = default_tracker().replace(**values).build()
    return stored_results(tracker, name)


def report_setting(results: Sequence[RunResult], key: str) -> float:
    """Return the largest value of a key of `report` in the results' configs, or the default."""
    found = [result.config.value(f"report.{key}") for result in results]
    values = [float(value) for value in found if value is not None]
    return max(values) if values else float(OmegaConf.load(conf_dir() / "config.yaml").report[key])


def _allowance(results: Sequence[RunResult], spread: float) -> dict[str, Allowance]:
    """The spread of runs on the machine of these results, as this machine's cache knows it."""
    environment = next((run.environment for run in results if run.environment), {})
    backends = {str(run.config.value("backend")) for run in results if run.config}
    cache = Path(str(OmegaConf.load(conf_dir() / "config.yaml").cache_dir)).expanduser()
    return read_allowance(cache, environment, spread, backends)


def _result(folder: Path) -> RunResult:
    try:
        return load_result(folder)
    except ResultError as error:
        return RunResult(Status.FAILED, CellConfig(), "", error=str(error))


def _incomplete(letter: str, name: str, results: Sequence[RunResult]) -> str:
    """Say how many runs of a sweep have no result; empty if all have one."""
    folder = Path(name).expanduser()
    plan = read_plan(folder) if folder.is_dir() else None
    planned = len(results) if plan is None else max(len(plan.runs), len(results))
    missing = planned - sum(bool(run.config) for run in results)
    if not missing:
        return ""
    return f"{letter} is incomplete: {missing} of its {counted(planned, 'run')} have no result."


def _name(given: str) -> str:
    folder = Path(given).expanduser()
    return folder.resolve().name if folder.is_dir() else given


def _is_same_folder(a: str, b: str) -> bool:
    folders = [Path(name).expanduser() for name in (a, b)]
    return all(folder.is_dir() for folder in folders) and folders[0].samefile(folders[1])


def _started(results: Sequence[RunResult]) -> str:
    return min((run.started_at for run in results if run.started_at), default="")[:16]


def _output_folder(given: str | None) -> Path:
    if given is None:
        name = f"compare_{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}"
        taken = take_new(outputs_dir() / name)
        taken.release()
        return taken.path
    folder = Path(given).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output {given}: {error.strerror}: give a folder that can be written"
        ) from error
    return folder


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"must be a share from 0 to below 1, got {text!r}: give for example 0.05, which is 5 %"
        )
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m crossbench.compare",
        description="Compare the cells of sweep B with the same cells of sweep A: throughput, p95, "
        "peak memory and the verdicts on the ranking. Exit status 3: B regressed.",
        epilog="More: docs/comparing.md",
    )
    parser.add_argument("a", metavar="A", help="the folder of a sweep or of a cell: the baseline")
    parser.add_argument("b", metavar="B", help="the folder of a sweep or of a cell: what is judged")
    parser.add_argument(
        "--match", choices=[match.value for match in Match], default=Match.IDENTITY.value,
        help="what makes two cells the same: all settings (identity), or their names (label), if "
        "versions of crossbench have other settings",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=_share, metavar="SHARE",
        help="a difference for the worse beyond it is a regression, if the interval excludes no "
        "difference; default: report.margin (0.02)",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_true", help="compare also different models, data and precisions"
    )
    parser.add_argument(
        "--common", action="store_true",
        help="compare only the cells that both have; else a cell that B lacks is a regression",
    )  # fmt: skip
    parser.add_argument(
        "--tracking-uri", metavar="URI",
        help="an MLflow store; A and B may then be names of sweeps or ids of their parent runs",
    )  # fmt: skip
    parser.add_argument("--experiment", metavar="NAME", help="the experiment in that store")
    parser.add_argument(
        "--output", metavar="DIR", help="where report.md is written; default: a folder in outputs/"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    given = _parser().parse_args(arguments)
    as_typed = in_shell("python", "-m", "crossbench.compare", *map(hide_argument, arguments))
    return EXIT_REGRESSION if compare(given, as_typed).regressed else 0


if __name__ == "__main__":
    run_command(main)
