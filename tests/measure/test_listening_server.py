"""CPU time and memory of a server that is found by its port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from crossbench.measure.listening_server import ListeningServer
from tests.helpers.bad_servers import free_port

# Listens, starts a child that inherits the socket, and uses the CPU on each line of its input
SERVER = """
import os, socket, sys, time
listening = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if child:
    print(listening.getsockname()[1], flush=True)
    for _ in sys.stdin:
        end = time.process_time() + 0.3
        while time.process_time() < end: pass
        print("done", flush=True)
    os.kill(child, 9)
else:
    time.sleep(600)
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.communicate("", timeout=20)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS shows ports only to root")
def test_the_processes_behind_a_port(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    assert server.stdin is not None
    listening = ListeningServer.on(int(server.stdout.readline()))
    assert listening is not None
    before = listening.read()
    assert listening.metrics() == {}  # nothing between two readings yet
    server.stdin.write("work\n")
    server.stdin.flush()
    assert server.stdout.readline() == "done\n"
    assert 0.25 < listening.read() - before < 0.6  # the child is counted once
    metrics = listening.metrics()
    assert metrics["memory/rss_peak_mb"] > 5
    assert metrics["cpu/cores_used"] > 0


def test_nobody_listens() -> None:
    assert ListeningServer.on(free_port()) is None
