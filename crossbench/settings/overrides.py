"""What the command line asks for: the points of a sweep, and a clear word where it cannot be."""

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
from crossbench.settings.composition_errors import (
    CONFIG_NAME,
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
    """Each cell's overrides, in the order in which Hydra's basic sweeper runs them."""
    batches = BasicSweeper.split_arguments(parse_overrides(overrides), max_batch_size=None)
    return [list(point) for batch in batches for point in batch]


def sweeper_params(swept: Mapping[str, str], given: Sequence[str]) -> dict[str, str]:
    """A study's `hydra.sweeper.params` as Hydra's sweeper is to have them, beside what is `given`.

    Hydra lets the command line win over a parameter that is spelt alike; `++batch=8` beside a
    swept `batch` would otherwise multiply with it, into cells that are all the same. A swept
    `repeat` comes first, wherever it was given, as the first varies least often: every cell of a
    block is measured before any is measured again, so that the machine's drift falls on all.
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


def swept_keys(points: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The keys that do not have the same value in every cell, as a config has them."""
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
) -> None:
    """Compose every cell before the first one runs, so that a typo costs no measurement.

    A point whose values `check` refuses fails its own cell; where it refuses all, none is started.
    `given` is the command line of the sweep, `params` the `hydra.sweeper.params` that Hydra found
    for it; None: nothing is known of them.

    Raises:
        ConfigError: the first point that does not compose, and what exists instead; the first two
            that are the same cell; axes of a study that would be lost; or why no point can be
            measured.
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


def check_study(config: DictConfig) -> None:
    """Refuse several studies at once, and one whose axes this run would leave out.

    `config` is that of a command, with its `hydra` node.

    Raises:
        ConfigError: with the command to give.
    """
    given = [str(word) for word in config.hydra.overrides.task]
    _refuse_several_at_once(given)
    if config.hydra.sweeper.params is None or "MULTIRUN" in str(config.hydra.mode):
        return
    keys = {override.key_or_group for override in parse_overrides(given)}
    params = {str(key): value for key, value in config.hydra.sweeper.params.items()}
    lost = [f"{key}={value}" for key, value in params.items() if key.lstrip("+") not in keys]
    if lost:
        raise ConfigError(
            f"this study sweeps {' '.join(lost)}, and a run without -m measures one cell: give "
            f"{in_shell(*this_command(), '-m', *given)}, or one value for each"
        )


def _refuse_lost_axes(config: DictConfig, params: Mapping[str, str], given: Sequence[str]) -> None:
    """Hydra reads `hydra.sweeper.params` before it sweeps: those of swept choices have no effect.

    Raises:
        ConfigError: with the command that runs each choice's own sweep.
    """
    own = config.hydra.sweeper.params or {}
    lost = [f"{key}={value}" for key, value in own.items() if params.get(key) != str(value)]
    if not lost:
        return
    parsed = parse_overrides(given)
    groups = [item for item in parsed if item.is_choice_sweep() and is_group(item.key_or_group)]
    swept = " ".join(str(item.input_line) for item in groups)
    why = f"{swept}: a choice that is swept loses the sweep of its own, here {' '.join(lost)}"
    if any(item.key_or_group == STUDIES for item in groups):
        raise ConfigError(f"{why}. Run the studies one after the other: {_suite(given)}")
    commands = "\n".join(
        "  " + command_with(parsed, item, [choice])
        for item in groups
        for choice in item.sweep_string_iterator()
    )
    raise ConfigError(f"{why}. Make it one sweep for each:\n{commands}")


def _refuse_several_at_once(given: Sequence[str]) -> None:
    """`+experiment=[a,b]` would be one study with the settings of both: neither of the two.

    `experiment=a,b` lacks its plus, and with it would lose the studies' sweeps.
    """
    for item in parse_overrides(given):
        if item.key_or_group != STUDIES or item.is_delete():
            continue
        value = None if item.is_sweep_override() else item.value()
        mixed = isinstance(value, list) and len(value) > 1
        if mixed or (item.is_choice_sweep() and not item.is_add()):
            what = (
                "mixes the settings of several studies into one"
                if mixed
                else "cannot be read: a study is added with a plus, and one at a time"
            )
            raise ConfigError(
                f"{item.input_line} {what}. Run the studies one after the other: {_suite(given)}"
            )


def _suite(given: Sequence[str]) -> str:
    """The suite's command for the studies in a command line, with its other overrides."""
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
    words = [f"studies=[{','.join(dict.fromkeys(names))}]", *map(in_shell, others)]
    return f"python -m crossbench.suite {' '.join(words)}"


def _refuse_same_cells(configs: Mapping[int, CellConfig]) -> None:
    """Two cells that measure the same count as repeats of one, which only `repeat` may ask for.

    Raises:
        ConfigError: the first two that are the same, by what they differ in where they do.
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
                f"{cells} differ in {', '.join(differing)} alone, which is no part of what a cell "
                "measures, so that its report would average them as repeats of one cell: make it "
                "two sweeps"
            )
        raise ConfigError(
            f"{cells} are the same: leave out the value that is given twice, or measure each cell "
            "several times with repeat=1,2,3"
        )
