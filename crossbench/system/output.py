"""What this process prints: no credentials, and nothing that a terminal would obey."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from crossbench.system.credentials import hide
from crossbench.wording import printable


def guard_output(arguments: Iterable[str]) -> None:
    """From now on, hide credentials in what is printed, above all those of `arguments`.

    Control characters are printed as escapes. What libraries print and tracebacks are included. A
    second call changes nothing.
    """
    given = tuple(arguments)
    sys.stdout, sys.stderr = (
        stream
        if stream is None or isinstance(stream, GuardedStream)
        else GuardedStream(stream, given)
        for stream in (sys.stdout, sys.stderr)
    )


class HidingStream:
    """A text stream that writes everything without credentials."""

    def __init__(self, stream: TextIO, given: tuple[str, ...]) -> None:
        self._stream, self._given = stream, given

    def write(self, text: str) -> int:
        self._stream.write(self._shown(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def _shown(self, text: str) -> str:
        return hide(text, *self._given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class GuardedStream(HidingStream):
    """Also writes control characters as escapes.

    rich, which draws with them, writes to `rich_proxied_file`; `SteadyConsole` escapes texts.
    """

    def __init__(self, stream: TextIO, given: tuple[str, ...]) -> None:
        super().__init__(stream, given)
        self.rich_proxied_file = HidingStream(stream, given)

    def _shown(self, text: str) -> str:
        return printable(super()._shown(text))
