"""A real Ray cluster on this machine: nodes that are started by `ray start`, and killed."""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
OPTIONS = ("--num-cpus=2", "--object-store-memory=80000000", "--block", "--disable-usage-stats")
# Only who has the token may use the cluster; without it, Ray makes one in the home folder
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# What makes a node another machine: its own boot id, and none of the files in a folder
_UNSHARED = """
mount --bind "$1" /proc/sys/kernel/random/boot_id
mount -t tmpfs none "$2"
shift 2
exec "$@"
"""


@dataclass
class RayNodes:
    """Nodes of a cluster by their names; the first one is its head."""

    folder: Path  # of Ray's sockets and logs; its path is short
    environment: dict[str, str]
    address: str = ""  # HOST:PORT, once the head has started
    nodes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str, *options: str, hidden: Path | None = None) -> None:
        """Start a node, and wait until it has joined.

        With `hidden`, it counts as a machine of its own, and the files in that folder do not exist
        there; only root can do that.
        """
        if self.nodes:
            where = [f"--address={self.address}"]
        else:
            where = ["--head", "--port=0", f"--temp-dir={self.folder}", "--include-dashboard=false"]
            where.append(f"--ray-client-server-port={low_port()}")
        command = [
            str(RAY), "start", *where, "--node-ip-address=127.0.0.1", f"--node-name={name}",
            *OPTIONS, *options,
        ]  # fmt: skip
        if hidden is not None:
            boot_id = self.folder / f"boot_id-{name}"
            boot_id.write_text(f"{name}\n")
            unshared = ["unshare", "--mount", "sh", "-ec", _UNSHARED, "sh"]
            command = [*unshared, str(boot_id), str(hidden), *command]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            start_new_session=True,
        )
        self.nodes[name] = process
        assert process.stdout is not None
        told = ""
        for line in process.stdout:
            told += line
            if found := re.search(r"--address='([\d.:]+)'", line):
                self.address = found[1]
            if "--block" in line:  # printed when it has started
                return
        raise AssertionError(f"the node {name} did not start: {told}")

    def kill(self, name: str) -> None:
        """Kill all processes of a node, as if its machine had lost its power."""
        process = self.nodes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextlib.contextmanager
def ray_nodes(environment: dict[str, str]) -> Iterator[RayNodes]:
    """Yield a cluster without nodes; those that are started end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets need a short path
    # Cells of a node that is killed leave their files in the folder
    variables = {**TOKEN, "RAY_worker_niceness": "0", "TMPDIR": str(folder)}
    nodes = RayNodes(folder, {**environment, **variables})
    try:
        yield nodes
    finally:
        for name in list(nodes.nodes):
            nodes.kill(name)
        shutil.rmtree(folder, ignore_errors=True)


def low_port() -> int:
    """Return a free port below those that Linux gives to connections, and so to Ray's own ones."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def can_unshare() -> bool:
    """Return whether this process may give a child file systems of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0
