"""What every command takes care of around its work: its output, a home folder, full disks."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import io
import os
import select
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

EXIT_BROKEN_PIPE = 141  # as a shell says of what SIGPIPE ended
# What we print beyond ASCII, for terminals that have no more
_IN_ASCII = {
    "–": "-", "─": "-", "±": "+-", "≈": "=", "≳": ">=", "×": "x", "·": ".", "…": "...", "✗": "x",
}  # fmt: skip


def exit_with_version(arguments: Sequence[str]) -> None:
    """Print our version and exit where `--version` is asked for; Hydra would print its own."""
    if "--version" in arguments:
        print(f"crossbench {version('crossbench')}")
        sys.exit(0)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Around all that a command does."""
    _print_in_any_encoding()
    _ensure_home()
    with told_in_words():
        try:
            yield
        finally:
            if sys.stdout is not None:  # it is None where it is closed
                sys.stdout.flush()


@contextlib.contextmanager
def told_in_words() -> Iterator[None]:
    """Exit with what the system denied, in words.

    Silently, and with status 141, where nobody reads standard output any more.
    """
    try:
        yield
    except BrokenPipeError:
        if not _lost_stdout():
            raise
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno is None:  # a library's own kind, and no word of the system's
            raise
        sys.exit(f"crossbench: {denied(error)}")


def denied(error: OSError) -> str:
    """What the system denied, where, and what to do."""
    where = "" if error.filename is None else f"{error.filename}: "
    if isinstance(error, FileNotFoundError) and not where:
        return f"{error.strerror}. Has the current directory been removed?"
    return (
        f"{where}{error.strerror or error}. See that our folders can be written and have space "
        "left, or give others with outputs_dir=DIR and cache_dir=DIR"
    )


def _print_in_any_encoding() -> None:
    """Let no character that a terminal does not have end a command."""
    codecs.register_error("crossbench", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="crossbench")


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    # Bytes of the command line that are no text here were taken in as surrogates
    if all("\udc80" <= character <= "\udcff" for character in text):
        return text.encode("ascii", "surrogateescape"), error.end
    pieces = [
        _IN_ASCII.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
        for character in text
    ]
    return "".join(pieces), error.end


def _ensure_home() -> None:
    """Give a user without a home folder one until the command ends: libraries insist on it."""
    if os.environ.get("HOME") == "":
        del os.environ["HOME"]
    with contextlib.suppress(RuntimeError):
        Path.home()
        return
    home = tempfile.mkdtemp(prefix="crossbench-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["HOME"] = home
    chosen = any(word.startswith("cache_dir=") for word in sys.argv)
    if not (chosen or os.environ.get("CROSSBENCH_CACHE")):
        print(
            "crossbench: this user has no home folder, so models are kept until the command ends: "
            "set HOME, or CROSSBENCH_CACHE=DIR to keep them",
            file=sys.stderr,
        )


def _lost_stdout() -> bool:
    """Whether standard output is a pipe that nobody reads; it leads nowhere from now on."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, ValueError, OSError):  # closed, or not a file
        return False
    watch = select.poll()
    watch.register(descriptor, 0)
    if not watch.poll(0):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return True
