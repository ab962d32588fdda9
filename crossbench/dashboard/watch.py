"""Feeding the board: follows the journal's end, and whichever server it announces."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import grpc

from crossbench.dashboard.board import Board
from crossbench.dashboard.gpu import Gpus
from crossbench.dashboard.journal import JournalReader
from crossbench.serving.client import InferenceClient
from crossbench.system.addresses import is_this_machine, split_address

INTERVAL_S = 1.0  # of the server's metrics: each costs it a millisecond
JOURNAL_INTERVAL_S = 0.5
CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 15.0  # a stream that is silent for so long leads nowhere any more


class Watcher:
    """Keeps `board` current. One channel to the server at a time, at most a message a second."""

    def __init__(self, board: Board, journal: Path | None) -> None:
        self._board = board
        self._journal = JournalReader(journal) if journal else None
        self._client: InferenceClient | None = None
        self._gpus = Gpus()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_journal())
            tasks.create_task(self._follow_server())

    def read_journal(self) -> None:
        """Take in what the journal has got since the last look."""
        for recorded in self._journal.new() if self._journal else ():
            self._board.apply(recorded)

    async def reset(self) -> None:
        """Start the counters anew: the server's own too, but while a cell is measured from them.

        Raises:
            grpc.aio.AioRpcError: the server is there no more.
        """
        if self._client is not None and self._board.linked and not self._board.measured:
            await self._client.reset_metrics()
            self._board.samples.clear()
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
                self.read_journal()  # perhaps the server has said that it goes
                self._board.disconnected(lost=self._board.address == address)
            await asyncio.sleep(JOURNAL_INTERVAL_S)

    async def _stream(self, address: str) -> None:
        """Follow one server until it ends, falls silent or cannot be reached."""
        local = is_this_machine(split_address(address, "server.address")[0])
        async with InferenceClient(address) as client:
            self._client = client
            try:
                await client.ready(CONNECT_TIMEOUT_S)
                self._board.connected(await client.info())
                messages = client.watch_metrics(INTERVAL_S)
                while True:
                    async with asyncio.timeout(SILENCE_S):
                        metrics = await anext(messages, None)
                    if metrics is None:
                        return
                    gpus = self._gpus.read() if local else ()
                    self._board.sample(metrics, gpus, time.time())
            except (grpc.aio.AioRpcError, TimeoutError):
                return
            finally:
                self._client = None
