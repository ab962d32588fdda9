"""`resume=FOLDER`: the command of a sweep that ended too early, given once more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException

from crossbench.errors import ConfigError
from crossbench.settings.command_line import in_shell, quoted
from crossbench.settings.composition_errors import parse_overrides
from crossbench.settings.places import outputs_dir
from crossbench.settings.stored_plan import PLAN_FILE, read_plan
from crossbench.settings.targets import refuse_allowing
from crossbench.system.credentials import HIDDEN

RESUME = "resume"
LAST = "last"
_MULTIRUN = ("-m", "--multirun")


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the sweep that `resume=FOLDER` names, with the absolute folder.

    Arguments without `resume` stay as they are. This process goes to the directory in which the
    sweep was started, because its arguments may contain relative paths.

    Raises:
        ConfigError: the folder has no plan, its plan has `allow_targets`, or other overrides are
            given.
    """
    given = [argument for argument in arguments if _key(argument) == RESUME]
    if not given:
        return list(arguments)
    others = [argument for argument in arguments if argument not in (*given, *_MULTIRUN)]
    if len(given) > 1 or not set(_MULTIRUN) & set(arguments):
        raise ConfigError(
            f"{' '.join(given)}: to resume a sweep, give python -m crossbench -m resume=FOLDER, "
            f"or resume={LAST} for the newest sweep in outputs_dir"
        )
    value = given[0].partition("=")[2].strip("\"'")
    where = [argument for argument in others if _key(argument) == "outputs_dir"]
    if value == LAST:
        others = [argument for argument in others if argument not in where]
        folder = _newest(Path(_value(where[-1])).expanduser() if where else outputs_dir())
    else:
        folder = Path(value).expanduser()
    folder = folder.resolve()
    if not folder.is_dir():
        raise ConfigError(
            f"{RESUME}={value}: there is no folder {folder}: give that of a sweep, or "
            f"{RESUME}={LAST}"
        )
    plan = read_plan(folder)
    if plan is None:
        raise ConfigError(
            f"{RESUME}={value}: {folder} has no {PLAN_FILE}, so there is nothing to resume. Either "
            "the sweep was killed before it was planned, or this is not the folder of a sweep: "
            "start a new sweep, or give another folder"
        )
    refuse_allowing(plan.arguments, str(folder / PLAN_FILE))
    completed = with_credentials(plan.arguments, others, "sweep")
    try:
        os.chdir(plan.directory)
    except OSError as error:
        raise ConfigError(
            f"the sweep in {folder} was started in {plan.directory}, which cannot be entered "
            f"({error.strerror}), and its paths may start there: create that directory"
        ) from error
    return [*completed, f"{RESUME}={quoted(str(folder))}"]


def with_credentials(stored: Sequence[str], others: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the stored arguments of a sweep or a suite, with the credentials that they lack.

    `others` are the arguments that were given beside `resume=`, and `what` is `sweep` or `suite`.

    Raises:
        ConfigError: an argument with credentials is missing, or another argument is given.
    """
    hidden = [argument for argument in stored if HIDDEN in argument]
    again = {_key(argument): argument for argument in others}
    wrong = [argument for argument in others if _key(argument) not in map(_key, hidden)]
    if wrong:
        raise ConfigError(
            f"{RESUME} continues a {what} with its own overrides: leave out {in_shell(*wrong)}, or "
            f"start a new {what}"
        )
    missing = [argument for argument in hidden if _key(argument) not in again]
    if missing:
        raise ConfigError(
            f"the plan of a {what} does not store user names, passwords and tokens: give "
            f"{in_shell(*missing)} again, with yours in place of {HIDDEN}"
        )
    return tuple(again[_key(argument)] if HIDDEN in argument else argument for argument in stored)


def _newest(outputs: Path) -> Path:
    """Return the folder in `outputs` whose plan was written last.

    Raises:
        ConfigError: there is none.
    """
    plans = list(outputs.glob(f"*/{PLAN_FILE}"))
    if not plans:
        raise ConfigError(
            f"{RESUME}={LAST}: no sweep in {outputs} can be resumed: give {RESUME}=FOLDER, or the "
            "outputs_dir=DIR of the sweep"
        )
    return max(plans, key=lambda path: path.stat().st_mtime_ns).parent


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+")


def _value(argument: str) -> str:
    """Return the value of an override as text, without quotes of Hydra's grammar."""
    try:
        return str(parse_overrides([argument])[0].value())
    except HydraException:
        return argument.partition("=")[2]
