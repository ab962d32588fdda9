"""Check the plain values of a cell (batch, device, …) and resolve a config to plain mappings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue

from crossbench.errors import ConfigError
from crossbench.types import Pipeline, Quant

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True, slots=True)
class CellSettings:
    """The checked plain values of a cell."""

    batch: int
    concurrency: int
    requests: int | None  # at most; None: no limit
    max_seconds: float
    warmup_requests: int
    warmup_max_seconds: float
    cell_timeout_s: float | None  # None: the sum of the stages' limits
    loading_timeout_s: float
    repeat: int
    pipeline: Pipeline
    device: str
    seed: int
    quant: Quant
    cache_dir: Path
    price_per_hour: float | None  # of the machine, in any currency


def check_settings(config: Mapping[str, Any]) -> CellSettings:
    """Return the plain values of a resolved config.

    Raises:
        ConfigError: a value cannot be used; the message has the first such value and what to give.
    """
    quant = (config["quant"] or {}).get("name")
    if quant not in set(Quant):
        raise ConfigError(f"quant.name={quant} is not a precision: give one of {', '.join(Quant)}")
    pipeline = config["pipeline"]
    if pipeline not in set(Pipeline):
        raise ConfigError(f"pipeline must be one of {', '.join(Pipeline)}, got {pipeline!r}")
    if not isinstance(config["report"], Mapping):
        raise ConfigError(
            f"report={config['report']}: report has keys of its own: give for example "
            "report.latency_bound_ms=200"
        )
    bound_ms = config["report"]["latency_bound_ms"]
    if bound_ms is not None and (isinstance(bound_ms, bool | str) or not bound_ms > 0):
        raise ConfigError(
            f"report.latency_bound_ms must be a positive number of milliseconds, got {bound_ms!r}: "
            "give for example report.latency_bound_ms=200, or null for no bound"
        )
    for key, example in (("margin", 0.02), ("spread", 0.1)):
        _check_share(f"report.{key}", config["report"][key], example)
    device = str(config["device"])
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"device={device} is not a device: give auto, cpu, cuda, cuda:1 or mps")
    return CellSettings(
        batch=_count(config, "batch", least=1),
        concurrency=_count(config, "concurrency", least=1),
        requests=None if config["requests"] is None else _count(config, "requests", least=1),
        max_seconds=_seconds(config, "max_seconds"),
        warmup_requests=_count(config, "warmup_requests", least=0),
        warmup_max_seconds=_seconds(config, "warmup_max_seconds"),
        cell_timeout_s=None
        if config["cell_timeout_s"] is None
        else _seconds(config, "cell_timeout_s"),
        loading_timeout_s=_seconds(config, "loading_timeout_s"),
        repeat=_count(config, "repeat", least=0),
        pipeline=Pipeline(pipeline),
        device=device,
        seed=_count(config, "seed", least=0),
        quant=Quant(quant),
        cache_dir=_cache_dir(str(config["cache_dir"])),
        price_per_hour=_price_per_hour(config),
    )


def _price_per_hour(config: Mapping[str, Any]) -> float | None:
    price = config["cost"]["per_hour"]
    if price is None:
        return None
    if isinstance(price, bool | str) or not 0 < price < math.inf:
        raise ConfigError(
            f"cost.per_hour must be the positive price of an hour, got {price!r}: give for example "
            "cost.per_hour=1.2, or null for no price"
        )
    return float(price)


def _cache_dir(text: str) -> Path:
    try:
        folder = Path(text).expanduser()
    except RuntimeError as error:  # ~ of a user without a home folder, or ~ of an unknown user
        raise ConfigError(
            f"cache_dir={text}: {error} Give cache_dir=DIR, or set CROSSBENCH_CACHE=DIR"
        ) from error
    if not text.strip():
        raise ConfigError(
            "cache_dir is empty: give cache_dir=DIR, or set CROSSBENCH_CACHE=DIR, or unset it"
        )
    return folder


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return the config as resolved dicts and lists.

    Raises:
        ConfigError: a value is missing or refers to a key that does not exist.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        example = "HOST:PORT" if str(error.full_key).endswith("address") else "..."
        raise ConfigError(
            f"{error.full_key} has no value: give {error.full_key}={example}"
        ) from error
    except InterpolationKeyError as error:
        reason = str(error).splitlines()[0].removeprefix("Interpolation key ")
        if "server.address" in reason:
            raise ConfigError(
                "target=remote measures a server that is already running: give "
                "python -m crossbench.client server.address=HOST:PORT"
            ) from error
        raise ConfigError(
            f"{error.full_key} refers to a key that does not exist: {reason}"
        ) from error
    except Exception as error:  # OmegaConf raises many types, all of them mistakes in a config
        raise ConfigError(f"the configuration cannot be resolved: {error}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _count(config: Mapping[str, Any], key: str, least: int) -> int:
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive whole number" if least else "a whole number, 0 or more"
        raise ConfigError(
            f"{key} must be {kind}, got {value!r}: give at least {least}, for example {key}=32"
        )
    return value


def _check_share(key: str, value: Any, example: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(
            f"{key} must be a share between 0 and 1, got {value!r}: give for example "
            f"{key}={example}, which is {100 * example:.0f} %"
        )


def _seconds(config: Mapping[str, Any], key: str) -> float:
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ConfigError(
            f"{key} must be a positive number of seconds, got {value!r}: give for example {key}=15"
        )
    return float(value)
