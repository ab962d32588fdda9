"""Requests that name their models, one model after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

from crossbench.errors import ConfigError
from crossbench.serving.client import Message


def mix_models(messages: Iterator[Message], models: Sequence[str]) -> Iterator[Message]:
    """The same requests, each for the next of `models`: request i is for models[i % n]."""
    for message, model in zip(messages, cycle(models), strict=False):
        message.model = model
        yield message


def wanted_models(chosen: Any, served: Sequence[str]) -> list[str]:
    """The turns that `load.models` asks for, by the names of models that the server has.

    A null in the list is the server's first model.

    Raises:
        ConfigError: it is neither `all` nor a list of names, or the server has no such model.
    """
    if chosen == "all":
        return list(served)
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen:
        raise ConfigError(
            f"load.models must be all or a list of names, got {chosen!r}: this server has "
            f"{', '.join(served)}"
        )
    names = [served[0] if name is None else str(name) for name in chosen]
    if absent := [name for name in names if name not in served]:
        raise ConfigError(
            f"load.models names {', '.join(absent)}, and this server has {', '.join(served)}: "
            "add what is missing to pool.models"
        )
    return names
