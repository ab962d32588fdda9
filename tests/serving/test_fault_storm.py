"""Random faults in a row under load: every reply is right, and what fails says why."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import psutil
import pytest

from crossbench.models.folder import ModelFolder
from crossbench.serving.client import InferenceClient
from crossbench.serving.replica import Replica
from tests.helpers.faulty import Fault, FaultyBackend, passage_of
from tests.helpers.serving import in_process, noop_of, serving, until

FAULTS = 10
CLIENTS = 12
INNOCENTS = range(10, 40)
DEADLY = (Fault.DIES, Fault.HANGS, Fault.STOPS)  # only a process survives them
OUTSIDE = ("SIGKILL", "SIGSTOP")


@dataclass
class Storm:
    """Innocent clients that check each score, and the faults beside them."""

    client: InferenceClient
    random: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    words: set[str] = field(default_factory=set)
    stopping: bool = False

    async def innocent(self) -> None:
        while not self.stopping:
            sent = self.random.choices(INNOCENTS, k=self.random.randint(1, 4))
            try:
                reply = await self.client.score("q", [passage_of(tokens) for tokens in sent])
            except grpc.aio.AioRpcError as error:
                self.outcomes[error.code().name] += 1
                self.words.add(error.details() or "")
            else:
                assert list(reply.scores) == sent
                self.outcomes["OK"] += 1

    async def faulty(self, fault: Fault) -> str:
        try:
            await self.client.score("q", [fault.passage])
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


async def storm(replicas: Sequence[Replica], faults: Sequence[str | Fault], seed: int) -> Storm:
    chosen = random.Random(seed)
    async with (
        serving(replicas, infer_timeout_s=1.0) as address,
        InferenceClient(address) as client,
    ):
        found = Storm(client, chosen)
        working = [asyncio.create_task(found.innocent()) for _ in range(CLIENTS)]
        for fault in faults:
            before = found.outcomes["OK"]
            if isinstance(fault, Fault):
                expected = "RESOURCE_EXHAUSTED" if fault == Fault.NEVER_FITS else "INTERNAL"
                assert await found.faulty(fault) == expected, fault
            else:
                victim = chosen.choice(replicas)
                await until(lambda victim=victim: victim.pid)
                os.kill(victim.pid or 0, getattr(signal, fault))
            await until(lambda before=before: found.outcomes["OK"] > before + 2 * CLIENTS)
        found.stopping = True
        await asyncio.gather(*working)
        for _ in range(4):
            assert len((await client.score("q", ["p"])).scores) == 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_ten_faults_of_worker_processes_in_a_row(seeded_model: ModelFolder, seed: int) -> None:
    replicas = [in_process(noop_of(FaultyBackend, seeded_model)) for _ in range(2)]
    kinds = [*Fault, *OUTSIDE]
    faults = random.Random(seed).choices(kinds, k=FAULTS)
    found = asyncio.run(storm(replicas, faults, seed))
    print(f"seed {seed}: {[str(getattr(f, 'name', f)) for f in faults]}: {dict(found.outcomes)}")
    # Only what was computed together with a sequence that hangs, or in a stopped process, is lost
    assert all("the worker hangs" in words for words in found.words), found.words
    if not {Fault.HANGS, Fault.STOPS, "SIGSTOP"} & set(faults):
        assert set(found.outcomes) == {"OK"}
    assert not [
        child for child in psutil.Process().children() if "worker_process" in child.cmdline()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ten_faults_of_threads_in_a_row(seeded_model: ModelFolder, seed: int) -> None:
    backends = [noop_of(FaultyBackend, seeded_model) for _ in range(2)]
    replicas = [Replica(backend, backend) for backend in backends]
    kinds = [fault for fault in Fault if fault not in DEADLY]
    faults = random.Random(seed).choices(kinds, k=FAULTS)
    found = asyncio.run(storm(replicas, faults, seed))
    print(f"seed {seed}: {[fault.name for fault in faults]}: {dict(found.outcomes)}")
    assert set(found.outcomes) == {"OK"}
