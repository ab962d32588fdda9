"""The server that the client drives: in this process, in its own process, or already running."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

import grpc

from crossbench.errors import CrossbenchError, TargetDied, TargetUnreachable
from crossbench.runner.http_target import HttpServer, check_url
from crossbench.runner.pinning import (
    Cores,
    children_on,
    own_cores,
    pin_this_process,
    split_cores,
)
from crossbench.serving.access import ClientAccess
from crossbench.serving.client import InferenceClient, error_message
from crossbench.serving.connection_fault import connection_fault
from crossbench.serving.endpoint import Endpoint
from crossbench.serving.server import Server
from crossbench.serving.server_settings import ServerSettings
from crossbench.settings.plan import CellPlan
from crossbench.system.addresses import is_this_machine, proxy_in_use, split_address
from crossbench.system.processes import child_environment
from crossbench.wording import exit_description

log = logging.getLogger(__name__)

END_S = 10.0


class Target(Protocol):
    """Opened once before the measurement, closed once after it.

    `cores` are those of client and server if each has its own.
    """

    cores: Cores | None

    async def open(self, make_server: Callable[[], Server]) -> str:
        """Make the server reachable and return its HOST:PORT or URL.

        `make_server` can be pickled, so that another process can build the server.
        """
        ...

    async def close(self) -> None: ...


@dataclass
class InProcess:
    """Our server on the client's own event loop, on a free loopback port."""

    name: str
    cores: Cores | None = field(default=None, init=False)
    _server: Server | None = field(default=None, init=False)

    async def open(self, make_server: Callable[[], Server]) -> str:
        # Loading takes seconds and would block the event loop
        self._server = await asyncio.to_thread(make_server)
        return await self._server.start()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop()


@dataclass
class SeparateProcess:
    """Our server in its own process, so that client and server do not share an interpreter.

    It is started afresh, not forked: the threads and locks of engines do not survive a fork. If
    this machine has enough cores, client and server get cores of their own until close().
    """

    name: str
    cores: Cores | None = field(default_factory=lambda: split_cores(own_cores()), init=False)
    _cores_before: set[int] = field(default_factory=set, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _channel: Connection | None = field(default=None, init=False)

    async def open(self, make_server: Callable[[], Server]) -> str:
        return await asyncio.to_thread(self._start, make_server)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _start(self, make_server: Callable[[], Server]) -> str:
        client_end, server_end = socket.socketpair()
        self._channel = Connection(client_end.detach())
        with server_end, children_on(self.cores.server) if self.cores else nullcontext():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "crossbench.runner.target_child", str(server_end.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[server_end.fileno()],
                env=child_environment(),
            )
        if self.cores:
            self._cores_before = os.sched_getaffinity(os.getpid())
            pin_this_process(self.cores.client)
        try:
            self._channel.send(make_server)
            answer = self._channel.recv()
        except (EOFError, ConnectionError) as error:
            status = self._process.wait()
            raise TargetDied(
                f"the server process {exit_description(status)} before it was ready"
            ) from error
        if isinstance(answer, CrossbenchError):
            raise answer
        assert isinstance(answer, str)
        return answer

    def _end(self) -> None:
        if self._cores_before:
            pin_this_process(self._cores_before)
        if self._channel is not None:
            self._channel.close()
        if self._process is None:
            return
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            log.warning("the server process did not end, so it is killed")
            self._process.kill()
            status = self._process.wait()
        if status:
            log.warning("the server process %s", exit_description(status))


@dataclass(frozen=True)
class Remote:
    """A server that is already running at `address` (HOST:PORT), and how to get in."""

    name: str
    address: str
    connect_timeout_s: float
    access: ClientAccess
    scrape: str | None
    cores: Cores | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        split_address(self.address, "server.address")
        if self.scrape is not None:
            check_url("target.scrape", self.scrape)

    async def open(self, make_server: Callable[[], Server]) -> str:
        await self.check()
        return self.address

    async def check(self) -> None:
        """Wait until the server is ready, no longer than `connect_timeout_s`.

        Raises:
            TargetUnreachable: it does not answer, or refuses this client.
        """
        async with InferenceClient(self.address, self.access) as client:
            try:
                await client.ready(self.connect_timeout_s)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    raise TargetUnreachable(
                        f"{self.address} refuses this client: {error_message(error)}"
                    ) from error
                fault = await asyncio.to_thread(connection_fault, self.address, self.access)
                if fault:
                    raise TargetUnreachable(f"{self.address} cannot be used: {fault}") from error
                raise TargetUnreachable(
                    f"no crossbench server answered at {self.address} within "
                    f"{self.connect_timeout_s:g} s ({error.code().name}): start one with "
                    "`python -m crossbench.serve`, and give the address that it prints"
                    + self._proxy_note()
                ) from error

    def _proxy_note(self) -> str:
        host, _ = split_address(self.address, "server.address")
        proxy = proxy_in_use()
        if proxy is None or is_this_machine(host):
            return ""
        return f". {proxy} is set: if {host} must be reached without it, add {host} to no_proxy"

    async def close(self) -> None:
        """Leave the server running: it was started by the user."""


def connect(plan: CellPlan, target: Target, address: str) -> Endpoint:
    """Return the client of a cell for its server, which is open at `address`."""
    if isinstance(target, HttpServer):
        return target.client()
    return InferenceClient(address, client_access(plan, target))


def client_access(plan: CellPlan, target: Target) -> ClientAccess:
    """Return how the client of a cell gets into its server, which is crossbench's own."""
    if isinstance(target, Remote):
        return target.access
    assert plan.server is not None, "only target=remote measures a server that runs already"
    settings: ServerSettings = plan.server.build()
    return settings.client_access()
