"""Calls that are given up after some time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, call: Callable[[], T]) -> T:
    """Return what `call` returns; exceptions are raised as they are.

    The call runs in a thread of its own. If it takes longer, it goes on there unheard; it does not
    keep this process from ending.

    Raises:
        TimeoutError: the call takes longer than `limit_s` seconds.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="bounded-call", daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    if not returned:
        raise TimeoutError(f"no end after {limit_s:g} s")
    return returned[0]
