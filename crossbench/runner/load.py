"""From the config's node `load` to the load itself and to what its requests have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from crossbench.errors import ConfigError
from crossbench.load.protocol import Load, LoadContext
from crossbench.load.requests import RequestOptions
from crossbench.load.sender import Stop
from crossbench.runner.build import build
from crossbench.settings.schema import CellSettings, check_groups

_TARGET = f"{RequestOptions.__module__}.{RequestOptions.__qualname__}"
_OPTIONS = frozenset(item.name for item in fields(RequestOptions))


def build_load(config: Mapping[str, Any], settings: CellSettings) -> tuple[Load, RequestOptions]:
    """Both are cheap: nothing is sent yet.

    Raises:
        ConfigError: a value of the node cannot be used.
    """
    node = config["load"]
    if missing := sorted(_OPTIONS - node.keys()):
        raise ConfigError(f"load has no {', '.join(missing)}: see conf/request.yaml")
    labels = node.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(
            f"load.labels must be a list of the config's keys, got {labels!r}: give for example "
            "labels: [load, load.rate] in its YAML"
        )
    own = {key: value for key, value in node.items() if key not in _OPTIONS}
    common = {"_target_": _TARGET, **{key: node[key] for key in _OPTIONS}}
    check_groups({"load": common})
    options: RequestOptions = build(common)
    stop = Stop(settings.requests, settings.max_seconds)
    context = LoadContext(settings.concurrency, settings.seed, stop)
    load: Load = build(own, context=context)
    return load, options
