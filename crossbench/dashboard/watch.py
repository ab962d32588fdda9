"""Feeds the board: follows the journal and the server that it announces."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import grpc

from crossbench.dashboard.board import Board
from crossbench.dashboard.gpu import Gpus
from crossbench.dashboard.journal import JournalReader
from crossbench.errors import ConfigError
from crossbench.serving.access import ClientAccess
from crossbench.serving.client import InferenceClient
from crossbench.system.addresses import is_this_machine, split_address

INTERVAL_S = 1.0  # between metrics messages; each costs the server a millisecond
JOURNAL_INTERVAL_S = 0.5
CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 15.0  # a stream without a message for this long is considered dead


class Watcher:
    """Keeps `board` current, with one channel to the server and one message per second."""

    def __init__(self, board: Board, journal: Path | None) -> None:
        self._board = board
        self._journal = JournalReader(journal) if journal else None
        self._client: InferenceClient | None = None
        self._gpus = Gpus()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_journal())
            tasks.create_task(self._follow_server())

    def read_journal(self) -> None:
        """Apply the events that were added to the journal since the last call."""
        for recorded in self._journal.new() if self._journal else ():
            self._board.apply(recorded)

    async def reset(self) -> None:
        """Reset the counters, also those of the server unless a cell is being measured.

        Raises:
            grpc.aio.AioRpcError: the server does not answer.
        """
        if self._client is not None and self._board.is_connected and not self._board.is_measuring:
            await self._client.reset_metrics()
            self._board.server.forget()
        self._board.reset()

    async def _follow_journal(self) -> None:
        while self._journal is not None:
            self.read_journal()
            await asyncio.sleep(JOURNAL_INTERVAL_S)

    async def _follow_server(self) -> None:
        while True:
            address = self._board.address
            if address is not None:
                stream = asyncio.create_task(self._stream(address))
                while not stream.done() and self._board.address == address:
                    await asyncio.wait([stream], timeout=JOURNAL_INTERVAL_S)
                stream.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await stream
                await asyncio.sleep(JOURNAL_INTERVAL_S)
                self.read_journal()  # the server may have announced that it stops
                self._board.disconnected(lost=self._board.address == address)
            await asyncio.sleep(JOURNAL_INTERVAL_S)

    async def _stream(self, address: str) -> None:
        """Follow one server until it ends, sends no more messages or cannot be reached."""
        local = is_this_machine(split_address(address, "server.address")[0])
        try:
            access = ClientAccess.of(self._board.access)
        except ConfigError:  # its files have gone since the server started
            return
        async with InferenceClient(address, access) as client:
            self._client = client
            try:
                await client.ready(CONNECT_TIMEOUT_S)
                info = await client.info()
                if self._board.address != address:  # the next cell has started meanwhile
                    return
                self._board.connected(info)
                messages = client.watch_metrics(INTERVAL_S)
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        metrics = await anext(messages, None)
                    if metrics is None or self._board.address != address:
                        return
                    gpus = self._gpus.read() if local else ()
                    self._board.sample(metrics, gpus, time.time())
            except (grpc.aio.AioRpcError, TimeoutError):
                return
            finally:
                self._client = None
