"""`python -m crossbench.suite`: run the studies of conf/experiment one after the other.

Each study is its own process, `python -m crossbench -m +experiment=NAME`, because Hydra ignores the
sweeps of studies if several are given at once. Files record which studies are done, so that an
interrupted suite can be resumed.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from crossbench.backends.availability import Ready, Unavailable, availability
from crossbench.backends.base import Backend
from crossbench.errors import ConfigError
from crossbench.report.suite import (
    STUDY_FILE,
    SUITE_FILE,
    SuiteState,
    exit_status,
    read_suite,
    write_suite_report,
)
from crossbench.settings.choices import studies_text, study_names
from crossbench.settings.command_line import in_shell, quoted, readable, take_quiet
from crossbench.settings.composing import CONFIG_NAME
from crossbench.settings.composition_errors import did_you_mean, explain
from crossbench.settings.overrides import sweep_points, sweeper_params
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import CellPlan, composed_plan
from crossbench.settings.resume import with_credentials
from crossbench.settings.schema import register
from crossbench.settings.targets import take_allowed
from crossbench.sweeps.folder import absolute, hold, take_new
from crossbench.sweeps.progress import SteadyConsole
from crossbench.system.command import run_command
from crossbench.system.credentials import hide_argument
from crossbench.system.folder_lock import is_held
from crossbench.system.stop_signals import EXIT_INTERRUPTED
from crossbench.wording import counted

EXIT_FAILED = 1
STOP_GRACE_S = 60.0
HELP = """\
python -m crossbench.suite: run the studies of conf/experiment one after the
other and write one report.

  python -m crossbench.suite                            all that can run here
  python -m crossbench.suite studies=[20_stages,16_max_length]
  python -m crossbench.suite max_seconds=3 backend=onnx overrides for all
  python -m crossbench.suite resume=outputs/suite_...   go on after Ctrl-C
  python -m crossbench -m +experiment=20_stages         one study alone

Studies and their questions:
"""
console = SteadyConsole(stderr=True, emoji=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Run the suite and return the exit status: 0 if every study that could run succeeded.

    Raises:
        ConfigError: a study or an override does not exist; nothing was started.
    """
    if {"-h", "--help"} & set(arguments):
        print(f"{HELP}\n{studies_text()}\n\nMore: docs/configuration.md#ready-studies")
        return 0
    register()
    arguments = take_allowed(take_quiet(arguments))
    if wrong := [word for word in arguments if word.partition("=")[0] == "study"]:
        raise ConfigError(f"{wrong[0]}: give studies=[{wrong[0].partition('=')[2]}]")
    own = {"studies", "resume"}
    given = {a.partition("=")[0]: a for a in arguments if a.partition("=")[0] in own}
    overrides = [
        readable(argument) for argument in arguments if argument.partition("=")[0] not in own
    ]
    if "resume" in given:
        others = [argument for argument in arguments if argument != given["resume"]]
        if wrong := [argument for argument in others if hide_argument(argument) == argument]:
            raise ConfigError(
                "resume=FOLDER continues with the studies and overrides of the interrupted suite: "
                f"leave out {', '.join(wrong)}"
            )
        folder = Path(given["resume"].partition("=")[2]).expanduser().resolve()
        state = read_suite(folder)
        state = replace(state, overrides=with_credentials(state.overrides, others, "suite"))
        taken = hold(folder, "resume")
    else:
        names = chosen_studies(given.get("studies"))
        console.tell(f"checking {counted(len(names), 'study')}")
        folder, state = plan(names, overrides)
        taken = take_new(folder)
        folder = taken.path
        hidden = asdict(replace(state, overrides=tuple(map(hide_argument, state.overrides))))
        (folder / SUITE_FILE).write_text(json.dumps(hidden, indent=2) + "\n", "utf-8")
    for name, reason in state.skipped.items():
        console.print(f"[yellow]skipped {escape(name)}:[/] {escape(reason)}")
    try:
        return run(folder, state)
    finally:
        taken.release()


def chosen_studies(given: str | None) -> list[str]:
    """Return the names in `studies=[a,b]`, in that order; all studies for None.

    Raises:
        ConfigError: a study does not exist.
    """
    known = study_names()
    if given is None or given == "studies=all":
        return known
    try:
        value = OverridesParser.create().parse_override(given).value()
    except HydraException as error:
        raise ConfigError(f"{given} cannot be parsed: give studies=[a,b]") from error
    names = [str(name) for name in value] if isinstance(value, list) else [str(value)]
    if not any(names):
        raise ConfigError(f"{given} names no study: give studies=[a,b], or leave it out for all")
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no study {name}.{did_you_mean(name, known)} "
                f"Available studies: {', '.join(known)}"
            )
    return list(dict.fromkeys(names))


def plan(names: Iterable[str], overrides: Sequence[str]) -> tuple[Path, SuiteState]:
    """Return the folder of the suite, not created yet, and its state: what to run, what to skip.

    Raises:
        ConfigError: a study does not compose with the overrides.
    """
    studies, skipped, outputs = list(names), {}, Path()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for name in studies:
            try:
                composed = compose(
                    CONFIG_NAME, overrides=[f"+experiment={name}"], return_hydra_config=True
                )
                swept = sweeper_params(composed.hydra.sweeper.params or {}, overrides)
                task = [f"+experiment={name}", *overrides]
                points = sweep_points([*(f"{key}={value}" for key, value in swept.items()), *task])
                composed = compose(CONFIG_NAME, overrides=points[0])
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(f"{name}: {explain(error)}") from error
            outputs = absolute(composed.outputs_dir, "outputs_dir")
            # A study that compares backends is not skipped: its report shows the missing ones
            if len({word for point in points for word in point if _is_backend(word)}) < 2:
                reason = skip_reason(composed_plan(composed))
                if reason is not None:
                    skipped[name] = reason
    folder = outputs / f"suite_{datetime.now().astimezone():%Y-%m-%d_%H-%M-%S}"
    return folder.resolve(), SuiteState(tuple(studies), tuple(overrides), skipped)


def skip_reason(plan: CellPlan) -> str | None:
    """Return why this machine cannot run the backend of a plan, or None if it can.

    A precision that the backend does not support is no reason: the cell's result will show it.
    """
    settings, name = plan.settings, plan.backend.name
    backend: type[Backend] = plan.backend.type
    found = availability(backend, settings.quant, settings.device)
    if isinstance(found, Unavailable):
        return f"backend={name} is not available here. {found}"
    if settings.device == "auto" and isinstance(found, Ready):
        kinds, slow = backend.supported[settings.quant], backend.traits.too_slow_on
        if found.device in slow:
            wanted = " or ".join(kind for kind in kinds if kind not in slow)
            return (
                f"backend={name} finds no device={wanted}, and is too slow to measure on "
                f"device={found.device}: give device={found.device} to run it anyway"
            )
    return None


def run(folder: Path, state: SuiteState) -> int:
    """Run the remaining studies, write the report and return the exit status."""
    todo = [name for name in state.studies if name not in state.skipped]
    interrupted = False
    for number, name in enumerate(todo, start=1):
        place = f"study {number}/{len(todo)} {name}"
        if exit_status(folder / name) is not None:
            console.tell(escape(f"{place}: already done"))
            continue
        console.tell(f"[bold]{escape(place)}[/]")
        status = run_study(name, state.overrides, folder / name)
        if status == EXIT_INTERRUPTED:
            interrupted = True
            break
        done = {"exit_status": status}
        (folder / name).mkdir(exist_ok=True)
        (folder / name / STUDY_FILE).write_text(json.dumps(done) + "\n", "utf-8")
    report = write_suite_report(folder)
    console.print(escape(f"report of the suite: {report}"))
    if interrupted:
        again = in_shell("python", "-m", "crossbench.suite", f"resume={folder}")
        console.print(f"interrupted; to continue: {escape(again)}")
        return EXIT_INTERRUPTED
    return EXIT_FAILED if any(exit_status(folder / name) for name in todo) else 0


def run_study(name: str, overrides: Sequence[str], folder: Path) -> int:
    """Run one study as a process and return its exit status. Ctrl-C stops it and keeps its results.

    Raises:
        ConfigError: a process of a killed suite still runs the study.
    """
    if is_held(folder):
        raise ConfigError(
            f"{folder} is in use by a study of a suite that was killed: wait until it ends, or "
            "stop it, then resume the suite"
        )
    shutil.rmtree(folder, ignore_errors=True)  # remove the results of an interrupted run
    command = [sys.executable, "-m", "crossbench", "-m", f"+experiment={name}", *overrides]
    # In its own process group: otherwise Ctrl-C would reach it twice, from the terminal and from us
    study = subprocess.Popen([*command, f"hydra.sweep.dir={quoted(str(folder))}"], process_group=0)
    try:
        return study.wait()
    except KeyboardInterrupt:
        study.send_signal(signal.SIGINT)
        try:
            study.wait(STOP_GRACE_S)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            study.terminate()  # like a second Ctrl-C: it kills its cell and writes its report
            try:
                study.wait(STOP_GRACE_S)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                study.kill()
                study.wait()
        return EXIT_INTERRUPTED


def _is_backend(override: str) -> bool:
    return override.lstrip("+").startswith("backend=")


if __name__ == "__main__":
    run_command(main)
