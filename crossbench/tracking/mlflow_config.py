"""The configuration of a cell in its MLflow run, and how it is read back.

MLflow compares runs by their params, and its plots begin with the first of them in the alphabet. So
the cells of a sweep have only the keys that the sweep varies as params. The whole configuration is
in tags: each choice and plain value under its key, and everything in `CONFIG_TAG` as JSON. A cell
that was measured alone may be compared with any other, so all of its keys are params.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from crossbench.settings.cell_config import CellConfig
from crossbench.system.json_text import parse_json
from crossbench.tracking.mlflow_format import MAX_KEY, MAX_PARAM, MAX_TAG, chunks, shorten

# A text that is longer than a tag goes on in `crossbench.config.1` and so on
CONFIG_TAG = "crossbench.config"
_NOT_AN_AXIS = "repeat"  # a repeat is the same cell
_UNFIT_IN_KEY = re.compile(r"[^\w\-. ]", re.ASCII)  # MLflow reads a slash as a path


def flatten_params(config: CellConfig) -> dict[str, str]:
    """Convert a config to texts by dotted keys; a group's key has its `name` as value.

    Invalid characters in keys become `_`, credentials in URIs become `***`, and values that are too
    long are cut. Settings of the tracker and the dashboard are left out.
    """
    flat: dict[str, str] = {}
    for path, text in config.comparable.texts.items():
        key = _fitting(path)
        while key in flat:  # two keys may have become one
            key += "_"
        flat[key] = shorten(text, MAX_PARAM)
    return flat


def cell_params(config: CellConfig, axes: Sequence[str]) -> dict[str, str]:
    """Return the params of a cell: its values on the `axes` of its sweep.

    Without axes, or if it has none of them, all keys are params.
    """
    flat = flatten_params(config)
    groups = [_fitting(axis) for axis in axes if axis != _NOT_AN_AXIS]
    varied = [
        key
        for key in flat
        if key in groups
        or any(key.startswith(f"{group}.") for group in groups if group not in flat)
    ]
    return {key: flat[key] for key in varied or flat}


def config_tags(config: CellConfig) -> dict[str, str]:
    """Return the tags with the config of a cell, see the module; none if it is empty."""
    flat = flatten_params(config)
    if not flat:
        return {}
    parts = chunks(json.dumps(flat), MAX_TAG)
    names = (f"{CONFIG_TAG}.{index}" if index else CONFIG_TAG for index in count())
    plain = {key: text for key, text in flat.items() if "." not in key and text != "null"}
    return {**plain, **{name: str(part) for name, part in zip(names, parts, strict=False)}}


def stored_config(tags: Mapping[str, str], params: Mapping[str, str]) -> dict[str, Any]:
    """Return the config of a cell's run by dotted keys: the reverse of `config_tags`.

    Older runs have no such tags, but all keys as `params`.
    """
    text = tags.get(CONFIG_TAG, "")
    for index in count(1):
        if (name := f"{CONFIG_TAG}.{index}") not in tags:
            break
        text += tags[name]
    try:
        texts = {**parse_json(text), **params} if text else params
    except ValueError:  # the tag was changed
        texts = params
    return {key: parsed(text) for key, text in texts.items()}


def sweep_params(overrides: Sequence[str]) -> dict[str, str]:
    """Convert a sweep's command line to the params of the parent run."""
    swept = dict(item.partition("=")[::2] for item in overrides)
    return flatten_params(CellConfig({key.lstrip("+~"): value for key, value in swept.items()}))


def _fitting(path: str) -> str:
    return _UNFIT_IN_KEY.sub("_", path)[: MAX_KEY - 10].strip(" .") or "_"


def parsed(text: str) -> Any:
    """Convert a text that MLflow stores back to its value."""
    try:
        return parse_json(text)
    except ValueError:
        return text
