"""The part of a cell's name that describes its load, derived from the config alone."""

from __future__ import annotations

from crossbench.errors import ConfigError
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.flatten import value_text
from crossbench.system.json_text import parse_json

LABELS_KEY = "load.labels"
CONCURRENCY_KEY = "concurrency"  # appears in the name of a cell with the closed loop
RATE_KEY = "load.rate"  # requests/s of an open loop
_OFFLINE = "offline"
_TRACE_KEY, _RISES_KEY, LEVELS_KEY = "load.path", "load.of", "load.levels"


def load_labels(config: CellConfig) -> tuple[str, ...]:
    """Return the config keys that appear in the cell's name: `concurrency`, `load.rate`, ….

    Old results lack `load.labels` and always used the closed loop.

    Raises:
        ConfigError: `load.labels` is not a list of keys.
    """
    given = labels = config.value(LABELS_KEY)
    if isinstance(labels, str):  # data frames and MLflow store lists as text
        try:
            labels = parse_json(labels)
        except ValueError:
            labels = given
    if labels is None:
        return (CONCURRENCY_KEY,)
    if not isinstance(labels, list | tuple) or not all(isinstance(key, str) for key in labels):
        raise ConfigError(
            f"{LABELS_KEY} must be a list of config keys, got {str(given)[:80]!r}: give for "
            f"example {LABELS_KEY}=[{CONCURRENCY_KEY}]"
        )
    return tuple(labels)


def load_description(config: CellConfig) -> str:
    """Describe the load in a few words: `batch=32 concurrency=4`."""
    return " ".join(value_text(axis, config.texts) for axis in ("batch", *load_labels(config)))


def is_ramp(config: CellConfig) -> bool:
    """Return whether the load rises in steps, so that the cell's totals mix several loads."""
    return config.value(LEVELS_KEY) is not None


def is_offline(config: CellConfig) -> bool:
    """Return whether all requests are due at the start."""
    return bool(config.value("load") == _OFFLINE)


def is_paced(config: CellConfig) -> bool:
    """Return whether requests come at their own rate, whatever the server does (an open loop).

    Below the server's capacity, the throughput of such a cell is that of its load. With
    load=offline all requests are due at once, so its throughput is the server's.
    """
    rate_rises = is_ramp(config) and config.value(_RISES_KEY) == "rate"
    return rate_rises or any(config.value(key) is not None for key in (RATE_KEY, _TRACE_KEY))
