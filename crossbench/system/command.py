"""Set-up and error handling that all commands share: output encoding, home folder, OS errors."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import os
import select
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from crossbench.errors import CrossbenchError
from crossbench.system.output import guard_output
from crossbench.system.stop_signals import EXIT_INTERRUPTED, stop_like_ctrl_c

EXIT_BROKEN_PIPE = 141  # the status that a shell reports for a process that SIGPIPE ended
# Replacements for our non-ASCII characters on terminals that cannot show them
_ASCII_REPLACEMENTS = {
    "–": "-", "─": "-", "±": "+-", "≈": "=", "≳": ">=", "×": "x", "·": ".", "…": "...", "✗": "x",
    "≷": "<>", "★": "*", "☆": "(*)",
}  # fmt: skip


def exit_with_version(arguments: Sequence[str]) -> None:
    """Print crossbench's version and exit if `--version` is given; Hydra would print its own."""
    if "--version" in arguments:
        print(f"crossbench {version('crossbench')}")
        sys.exit(0)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Wrap a whole command: prepare its output and home folder, and report OS errors.

    SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does; it exits with status 130.
    """
    _tolerate_any_encoding()
    guard_output(sys.argv[1:])
    _ensure_home()
    with stop_like_ctrl_c(), exit_on_os_error():
        try:
            yield
        except KeyboardInterrupt:
            print("crossbench: interrupted", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        finally:
            if sys.stdout is not None:  # it is None if the process started with it closed
                sys.stdout.flush()


def run_command(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Run a command on this process's arguments and exit with the status that it returns."""
    exit_with_version(sys.argv[1:])
    with command():
        try:
            sys.exit(main(sys.argv[1:]))
        except CrossbenchError as error:
            sys.exit(f"crossbench: {error}")


def only_argument(arguments: Sequence[str], description: str, usage: str) -> str:
    """Return the only argument; exit with the description if help is asked for, or the usage."""
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        return arguments[0]
    if arguments and arguments[0] in ("-h", "--help"):
        print(description)
        sys.exit(0)
    print(usage, file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def exit_on_os_error() -> Iterator[None]:
    """Turn an operating-system error into an exit with a readable message.

    If the reader of standard output has gone, exit silently with status 141.
    """
    try:
        yield
    except BrokenPipeError:
        if not _lost_stdout():
            raise
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno is None:  # raised by a library, not by the operating system
            raise
        sys.exit(f"crossbench: {os_error_message(error)}")


def os_error_message(error: OSError) -> str:
    """Return which path failed, why, and what the user can do about it."""
    path = "" if error.filename is None else f"{error.filename}: "
    if isinstance(error, FileNotFoundError) and not path:
        return f"{error.strerror}. Has the current directory been removed?"
    return (
        f"{path}{error.strerror or error}. Make sure that the output and cache folders are "
        "writable and have free space, or choose others with outputs_dir=DIR and cache_dir=DIR"
    )


def _tolerate_any_encoding() -> None:
    """Replace characters that the terminal's encoding lacks instead of failing on them."""
    codecs.register_error("crossbench", _to_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not if a test has replaced it
            stream.reconfigure(errors="crossbench")


def _to_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    # Python decodes undecodable bytes of the command line to surrogates: print the bytes again
    if all("\udc80" <= character <= "\udcff" for character in text):
        return text.encode("ascii", "surrogateescape"), error.end
    pieces = [
        _ASCII_REPLACEMENTS.get(character)
        or character.encode("ascii", "backslashreplace").decode("ascii")
        for character in text
    ]
    return "".join(pieces), error.end


def _ensure_home() -> None:
    """Create a temporary home folder if the user has none, because some libraries require one."""
    if os.environ.get("HOME") == "":
        del os.environ["HOME"]
    with contextlib.suppress(RuntimeError):
        Path.home()
        return
    home = tempfile.mkdtemp(prefix="crossbench-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["HOME"] = home
    has_cache_dir = any(argument.startswith("cache_dir=") for argument in sys.argv)
    if not (has_cache_dir or os.environ.get("CROSSBENCH_CACHE")):
        print(
            "crossbench: this user has no home folder, so cached models are deleted when the "
            "command ends: set HOME, or CROSSBENCH_CACHE=DIR to keep them",
            file=sys.stderr,
        )


def _lost_stdout() -> bool:
    """Whether standard output is a pipe without a reader; if so, redirect it to the null device."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, ValueError, OSError):  # closed, or not a file
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    if not poll.poll(0):
        return False
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, descriptor)
    os.close(null_device)
    return True
