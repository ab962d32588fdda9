"""The cells of a sweep, its blocks (`repeats=3`, or `repeat=1,2,3`), and its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from crossbench.errors import ConfigError
from crossbench.settings.composition_errors import parse_overrides
from crossbench.settings.overrides import REPEAT
from crossbench.settings.schema import OF_SWEEP
from crossbench.settings.stored_plan import FIRST_LOOK

LONGEST_NAME = 200  # of a sweep; MLflow stores 250 characters
SWEEPER = "hydra_plugins.crossbench_sweeper.sweeper.CrossbenchSweeper"
SEARCHER = "hydra_plugins.crossbench_sweeper.search.SearchSweeper"
_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True, slots=True)
class Grid:
    """The overrides of each cell, without `repeat`, and the values of `repeat`, one per block.

    The only value is None if the command line does not set `repeat`.
    """

    cells: tuple[tuple[str, ...], ...]
    blocks: tuple[int | None, ...]

    @classmethod
    def of(cls, points: Iterable[Sequence[str]]) -> Grid:
        """Return the grid of these points (`sweep_points`), whose `repeat` varies slowest.

        Raises:
            ConfigError: a value of `repeat` is not a whole number.
        """
        cells: dict[tuple[str, ...], None] = {}
        blocks: dict[int | None, None] = {}
        for point in points:
            cells[tuple(word for word in point if not _is_repeat(word))] = None
            given = [word.partition("=")[2] for word in point if _is_repeat(word)]
            blocks[_block(given[-1]) if given else None] = None
        return cls(tuple(cells), tuple(blocks))

    def point(self, cell: int, block: int | None) -> list[str]:
        """Return the overrides of one run."""
        words = list(self.cells[cell])
        return words if block is None else [f"++{REPEAT}={block}", *words]


def repeats_param(
    config: DictConfig, params: Mapping[str, str], given: Sequence[str]
) -> dict[str, str]:
    """Return the axis that `repeats=N` stands for: `repeat=1,…,N`; empty without `repeats`.

    `params` are the axes of the study, `given` the command line. `config` has its `hydra` node.

    Raises:
        ConfigError: a key of the sweep has several values, or `repeats` is not a number of blocks,
            is given together with `repeat`, or with a sweeper that has no blocks.
    """
    parsed = parse_overrides(given)
    for override in parsed:
        if override.key_or_group in OF_SWEEP and override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: {override.key_or_group} belongs to the whole sweep and "
                f"takes one value: give for example {override.key_or_group}=3"
            )
    if not isinstance(config.until_decided, bool):
        raise ConfigError(
            f"until_decided must be true or false, got {config.until_decided!r}: give "
            "until_decided=true"
        )
    if config.until_decided:
        return _until_decided(config, params, given)
    count = config.repeats
    if count is None:
        return {}
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(
            f"repeats must be a positive whole number, got {count!r}: give for example repeats=3"
        )
    return _blocks(f"repeats={count}", "repeats", count, config, params, given)


def _until_decided(
    config: DictConfig, params: Mapping[str, str], given: Sequence[str]
) -> dict[str, str]:
    most = config.max_repeats
    if isinstance(most, bool) or not isinstance(most, int) or most < FIRST_LOOK:
        raise ConfigError(
            f"max_repeats must be a whole number, {FIRST_LOOK} or more, got {most!r}: give for "
            "example max_repeats=12"
        )
    if config.repeats is not None:
        raise ConfigError(
            f"until_decided=true and repeats={config.repeats} both say how many blocks are "
            f"measured: leave one of them out, or give max_repeats={config.repeats}"
        )
    return _blocks("until_decided=true", "until_decided", most, config, params, given)


def _blocks(
    asked: str,
    key: str,
    count: int,
    config: DictConfig,
    params: Mapping[str, str],
    given: Sequence[str],
) -> dict[str, str]:
    """Return `repeat=1,…,count`; `asked` is the override with `key` that stands for it."""
    own = [f"{key}={value}" for key, value in params.items() if key.lstrip("+") == REPEAT]
    own += [str(item.input_line) for item in parse_overrides(given) if item.key_or_group == REPEAT]
    if own:
        raise ConfigError(
            f"{asked} and {own[0]} both say in which blocks the cells are measured: leave "
            f"one of them out. {asked} means repeat={_listed(count)}"
        )
    require_our_sweeper(config, key)
    return {f"++{REPEAT}": _listed(count)}


def require_our_sweeper(config: DictConfig, key: str) -> None:
    """Refuse a key that only the sweeper of crossbench knows.

    Raises:
        ConfigError: the sweep uses another sweeper.
    """
    sweeper = config.hydra.sweeper._target_
    if sweeper != SWEEPER:
        raise ConfigError(
            f"{key} needs the sweeper of crossbench, but this sweep uses {sweeper}: leave out "
            f"hydra/sweeper=..., or leave out {key}"
        )


def check_resume(config: DictConfig) -> None:
    """Check the keys that decide what a resumed sweep measures again.

    Raises:
        ConfigError: `retries` is not a whole number, or the sweep has another sweeper.
    """
    retries = config.retries
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ConfigError(
            f"retries must be a whole number, 0 or more, got {retries!r}: give for example "
            "retries=1"
        )
    if config.resume is not None and config.hydra.sweeper._target_ == SEARCHER:
        raise ConfigError(
            "a search cannot be resumed, because what it measures depends on what it has measured: "
            "start a new one. With hydra.sweeper.storage=sqlite:///study.db and "
            "hydra.sweeper.study_name=NAME, a later search knows the values of earlier ones"
        )
    if config.resume is not None:
        require_our_sweeper(config, "resume")


def sweep_name(config: DictConfig) -> str | None:
    """Return the name that was given to the sweep, None if there is none.

    Raises:
        ConfigError: it is not a text of one line, or too long.
    """
    name = config.sweep_name
    if name is None:
        return None
    text = str(name).strip()
    if not OmegaConf.is_config(name) and text.isprintable() and 0 < len(text) <= LONGEST_NAME:
        return text
    raise ConfigError(
        f"sweep_name must be one line of 1 to {LONGEST_NAME} characters, got {text[:80]!r}: give "
        "for example sweep_name='batch sizes on the new machine'"
    )


def refuse_objective(config: DictConfig) -> None:
    """Refuse an objective for a sweep that measures every combination.

    Raises:
        ConfigError: the message has what to give.
    """
    if config.objective is not None and config.hydra.sweeper._target_ in (SWEEPER, _BASIC):
        raise ConfigError(
            f"objective={config.objective} is for a search, but this sweep measures every "
            "combination: give hydra/sweeper=optuna too, or leave it out"
        )


def refuse_without_sweep(config: DictConfig) -> None:
    """Refuse keys that ask for several runs in a run without -m.

    Raises:
        ConfigError: the message has the key.
    """
    if config.resume is not None:
        raise ConfigError(
            f"resume={config.resume} needs -m: give python -m crossbench -m resume={config.resume}"
        )
    if config.objective is not None:
        raise ConfigError(
            f"objective={config.objective} needs a search: give "
            f"-m hydra/sweeper=optuna objective={config.objective}"
        )
    if config.until_decided:
        raise ConfigError(
            "until_decided=true needs -m, because a run without -m measures one cell once: give "
            "python -m crossbench -m until_decided=true ..."
        )
    if config.sweep_name is not None:
        raise ConfigError(
            f"sweep_name={config.sweep_name} needs -m, because a run without -m is no sweep: leave "
            "it out"
        )
    if config.repeats is not None:
        raise ConfigError(
            f"repeats={config.repeats} needs -m, because a run without -m measures one cell once: "
            f"give python -m crossbench -m repeats={config.repeats} ..."
        )


def _is_repeat(word: str) -> bool:
    return word.partition("=")[0].lstrip("+") == REPEAT


def _block(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(
            f"repeat={text} is not the number of a block: give whole numbers, such as repeat=1,2,3"
        )
    return int(text)


def _listed(count: int) -> str:
    return ",".join(str(number) for number in range(1, count + 1))
