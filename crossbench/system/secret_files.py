"""Read the files of certificates, keys and tokens, with clear errors."""

from __future__ import annotations

import stat
from pathlib import Path

from crossbench.errors import ConfigError

LARGEST_BYTES = 1 << 20  # far larger than any certificate; /dev/zero would fill the memory


def read_file(path: str, key: str) -> bytes:
    """Return the content of the file that the setting `key` names.

    Raises:
        ConfigError: it is missing, unreadable or too large.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: ~ of an unknown user
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{key}={path} cannot be read ({reason}): give the path of a file that this user can "
            "read"
        ) from error
    if len(content) > LARGEST_BYTES:
        raise ConfigError(f"{key}={path} is larger than 1 MB: give the path of another file")
    return content


def exposed_to_others(path: str, key: str) -> str:
    """Return a warning if other users of this machine can read a secret file, else nothing."""
    mode = Path(path).expanduser().stat().st_mode
    if not mode & (stat.S_IRGRP | stat.S_IROTH):
        return ""
    return f"{key}={path} can be read by other users of this machine: run chmod 600 {path}"
