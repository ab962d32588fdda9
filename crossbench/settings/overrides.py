"""The points of a sweep from the command line, and errors for sweeps that cannot be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from crossbench.errors import ConfigError, CrossbenchError
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import in_shell, this_command
from crossbench.settings.composing import CONFIG_NAME
from crossbench.settings.composition_errors import (
    command_with,
    explain,
    is_group,
    parse_overrides,
)
from crossbench.settings.identity import NOT_IDENTITY
from crossbench.settings.plan import composed_config

REPEAT = "repeat"
STUDIES = "experiment"


def sweep_points(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each run, in the order of the product of the swept values."""
    batches = BasicSweeper.split_arguments(parse_overrides(overrides), max_batch_size=None)
    return [list(point) for batch in batches for point in batch]


def sweeper_params(swept: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """Return a study's `hydra.sweeper.params` without the keys that the command line overrides.

    Hydra itself only recognises keys with the same spelling: it would multiply `++batch=8` with a
    swept `batch` and produce equal cells. A swept `repeat` is moved to the front, where it varies
    slowest: each block measures every cell once, so that slow changes of the machine's speed affect
    all cells alike.
    """
    parsed = parse_overrides(given)
    keys = {override.key_or_group for override in parsed}
    params = {key: str(value) for key, value in swept.items() if key.lstrip("+") not in keys}
    blocks = dict(
        str(override.input_line).split("=", 1)
        for override in parsed
        if override.key_or_group == REPEAT and override.is_sweep_override()
    )
    blocks |= {key: value for key, value in params.items() if key.lstrip("+") == REPEAT}
    return blocks | params


def study_axes(config: DictConfig) -> dict[str, str]:
    """Return the axes of a config's study (`hydra.sweeper.params`), empty if it has none.

    Raises:
        ConfigError: they are not keys with values.
    """
    params = config.hydra.sweeper.params
    if params is not None and not isinstance(params, DictConfig):
        raise ConfigError(
            f"hydra.sweeper.params={params} has no keys: give the axes of the sweep themselves, "
            "such as batch=8,32"
        )
    return {str(key): str(value) for key, value in (params or {}).items()}


def swept_keys(points: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the config keys whose value is not the same in every cell."""
    values: dict[str, set[str]] = {}
    for point in points:
        for word in point:
            key, _, value = word.partition("=")
            values.setdefault(key.lstrip("+"), set()).add(value)
    return tuple(key for key, found in values.items() if len(found) > 1)


def check_points(
    points: Sequence[Sequence[str]],
    check: Callable[[CellConfig], object],
    given: Sequence[str] = (),
    params: Mapping[str, str] | None = None,
) -> list[str]:
    """Compose every cell before the first one runs, so that a typo costs no measurement.

    Returns the id of each point's cell (`identity_of`), empty if its config cannot be resolved.

    If `check` refuses some points, only their cells fail; if it refuses all, an error is raised.
    `given` is the command line of the sweep; `params` are the `hydra.sweeper.params` that Hydra
    used, or None if they are not known.

    Raises:
        ConfigError: a point does not compose, two points are the same cell, axes of a study would
            be lost, or no point can be measured.
    """
    refused: list[str] = []
    seen: dict[int, CellConfig] = {}
    for number, point in enumerate(points):
        try:
            config = compose(CONFIG_NAME, overrides=list(point), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error, point, given)) from error
        if params is not None:
            _refuse_lost_axes(config, params, given)
        try:
            seen[number] = composed_config(config)
            check(seen[number])
        except CrossbenchError as error:
            refused.append(str(error))
    if refused and len(refused) == len(points):
        raise ConfigError("\n".join(dict.fromkeys(refused)))
    _refuse_same_cells(seen)
    return [seen[n].cell_id if n in seen else "" for n in range(len(points))]


def check_study(config: DictConfig) -> None:
    """Refuse several studies in one run, and a study with axes in a run without -m.

    `config` must have its `hydra` node.

    Raises:
        ConfigError: the message has the command to give.
    """
    given = [str(word) for word in config.hydra.overrides.task]
    _refuse_several_at_once(given)
    params = study_axes(config)
    if "MULTIRUN" in str(config.hydra.mode):
        return
    keys = {override.key_or_group for override in parse_overrides(given)}
    lost = [f"{key}={value}" for key, value in params.items() if key.lstrip("+") not in keys]
    if lost:
        raise ConfigError(
            f"this study sweeps {' '.join(lost)}, but a run without -m measures one cell: give "
            f"{in_shell(*this_command(), '-m', *given)}, or one value for each key"
        )


def _refuse_lost_axes(config: DictConfig, params: Mapping[str, str], given: Sequence[str]) -> None:
    """Refuse to sweep over choices that have `hydra.sweeper.params` of their own.

    Hydra reads these parameters before it sweeps, so those of swept choices have no effect.

    Raises:
        ConfigError: the message has a command for the sweep of each choice.
    """
    own = config.hydra.sweeper.params or {}
    lost = [f"{key}={value}" for key, value in own.items() if params.get(key) != str(value)]
    if not lost:
        return
    parsed = parse_overrides(given)
    groups = [item for item in parsed if item.is_choice_sweep() and is_group(item.key_or_group)]
    swept = " ".join(str(item.input_line) for item in groups)
    reason = f"{swept}: Hydra ignores the axes of swept choices, here {' '.join(lost)}"
    if any(item.key_or_group == STUDIES for item in groups):
        raise ConfigError(f"{reason}. Run the studies one after the other: {_suite(given)}")
    commands = "\n".join(
        "  " + command_with(parsed, item, [choice])
        for item in groups
        for choice in item.sweep_string_iterator()
    )
    raise ConfigError(f"{reason}. Run one sweep for each:\n{commands}")


def _refuse_several_at_once(given: Sequence[str]) -> None:
    """Refuse several studies in one run.

    `+experiment=[a,b]` would be one study with the settings of both. `experiment=a,b` lacks the
    plus sign, and with it Hydra would ignore the studies' sweeps.
    """
    for item in parse_overrides(given):
        if item.key_or_group != STUDIES or item.is_delete():
            continue
        value = None if item.is_sweep_override() else item.value()
        mixed = isinstance(value, list) and len(value) > 1
        if mixed or (item.is_choice_sweep() and not item.is_add()):
            problem = (
                "mixes the settings of several studies into one"
                if mixed
                else "cannot be used: give one study, as +experiment=STUDY"
            )
            raise ConfigError(
                f"{item.input_line} {problem}. Run several studies one after the other: "
                f"{_suite(given)}"
            )


def _suite(given: Sequence[str]) -> str:
    """Return the suite command for the studies and the other overrides of a command line."""
    names: list[str] = []
    others: list[str] = []
    for item in parse_overrides(given):
        if item.key_or_group != STUDIES:
            others.append(str(item.input_line))
        elif item.is_sweep_override():
            names += item.sweep_string_iterator()
        else:
            value = item.value()
            names += map(str, value) if isinstance(value, list) else [str(value)]
    arguments = [f"studies=[{','.join(dict.fromkeys(names))}]", *map(in_shell, others)]
    return f"python -m crossbench.suite {' '.join(arguments)}"


def _refuse_same_cells(configs: Mapping[int, CellConfig]) -> None:
    """Refuse two cells with the same identity: the report would take them for repeats of one cell.

    Raises:
        ConfigError: two cells are the same; the message has the keys in which they differ, if any.
    """
    first: dict[tuple[str, str], int] = {}
    for number, config in configs.items():
        key = (config.cell_id, str(config.value(REPEAT)))
        earlier = first.setdefault(key, number)
        if earlier == number:
            continue
        mine, others = config.document, configs[earlier].document
        differing = [name for name in sorted(NOT_IDENTITY) if mine.get(name) != others.get(name)]
        cells = f"cells {earlier} and {number} of this sweep"
        if differing:
            raise ConfigError(
                f"{cells} differ only in {', '.join(differing)}, which does not change what a cell "
                "measures, so the report would average them as repeats of one cell: run two sweeps"
            )
        raise ConfigError(
            f"{cells} are the same: give each value only once; to measure each cell several times, "
            "give repeats=3"
        )
