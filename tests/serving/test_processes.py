"""Worker processes behind a real server: scores, errors, crashes and orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from crossbench.backends.noop import NoopBackend
from crossbench.backends.pytorch import PyTorchBackend
from crossbench.errors import BackendUnavailable, ModelError
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.serving.client import InferenceClient
from crossbench.serving.frames import pack_batch, pack_inference, unpack_answer, unpack_request
from crossbench.serving.process_engine import ProcessEngine
from crossbench.serving.replica import Replica
from crossbench.serving.scheduler import DirectScheduler
from crossbench.types import DeviceMemory, Inference, TokenBatch
from tests.helpers.serving import deployment, in_process, noop, noop_of, serving, until

PASSAGES = ["a short one", "a passage that is quite a bit longer than the first", "middle sized"]
BATCH = TokenBatch.from_lengths(np.arange(9, dtype=np.int32), np.ones(9, dtype=np.int32), [2, 3, 4])


@dataclass
class FailingBackend(NoopBackend):
    """Raises an error of an inference engine, in this process or in a worker process."""

    def load_model(self) -> None:
        raise BackendUnavailable("libengine is missing here: pip install engine")


@dataclass
class FileBackend(NoopBackend):
    """Loads only while its model file exists."""

    def load_model(self) -> None:
        if not (self.deployment.model.path / "model.safetensors").exists():
            raise ModelError("the model's file has gone")


@dataclass
class SlowBackend(NoopBackend):
    """Hangs on one batch and fails on another. Supports two callers, as OpenVINO does."""

    @property
    def workers(self) -> int:
        return 2

    def infer(self, batch: TokenBatch) -> Inference:
        if batch.lengths.max() > 30:
            signal.pause()
        if batch.lengths.max() > 20:
            raise RuntimeError("the engine fell over")
        return super().infer(batch)


def slow(model: ModelFolder) -> SlowBackend:
    return noop_of(SlowBackend, model)


def test_messages_survive_packing_and_unpacking() -> None:
    batch = unpack_request(pack_batch(BATCH))
    assert isinstance(batch, TokenBatch)
    for name in ("input_ids", "type_ids", "cu_seqlens"):
        assert np.array_equal(getattr(batch, name), getattr(BATCH, name))
    for shape in ((3,), (3, 5)):
        values = np.random.default_rng(0).random(shape, dtype=np.float32)
        answer = unpack_answer(pack_inference(Inference(values, 17), DeviceMemory(None, 2.5)))
        assert isinstance(answer, tuple)
        assert np.array_equal(answer[0].values, values)
        assert (answer[0].tokens_computed, answer[1]) == (17, DeviceMemory(None, 2.5))


def test_processes_give_the_scores_of_threads_and_count_as_the_server(
    seeded_model: ModelFolder, cache_dir: Path
) -> None:
    backend = PyTorchBackend("pytorch", deployment(seeded_model, cache_dir))

    async def scores(replica: Replica) -> tuple[np.ndarray, float, float]:
        async with serving([replica]) as address, InferenceClient(address) as client:
            await client.reset_metrics()
            reply = await client.score("which one", PASSAGES)
            metrics = await client.metrics()
            assert metrics.rss_peak_mb > 0.9 * metrics.rss_mb
            own = psutil.Process()
            times = own.cpu_times()
            rss_mb = metrics.rss_mb - own.memory_info().rss / 1e6
            return reply.scores, rss_mb, metrics.cpu_s - times.user - times.system

    in_child, rss_mb, cpu_s = asyncio.run(scores(in_process(backend)))
    here, _, _ = asyncio.run(scores(Replica(backend, backend)))
    assert np.allclose(in_child, here, atol=1e-6)
    assert rss_mb > 100  # the child process holds torch and the model
    assert cpu_s > 0.5


def test_load_errors_keep_their_type(seeded_model: ModelFolder, tmp_path: Path) -> None:
    engine = ProcessEngine(noop_of(FailingBackend, seeded_model))
    with pytest.raises(BackendUnavailable, match="libengine is missing"):
        engine.load_model()
    assert not engine.alive
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((seeded_model.path / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    broken = replace(seeded_model, path=tmp_path)
    engine = ProcessEngine(PyTorchBackend("pytorch", deployment(broken, Path())))
    with pytest.raises(ModelError, match="check that its files are complete"):
        engine.load_model()


def test_a_killed_worker_fails_its_own_requests_and_is_replaced(
    seeded_model: ModelFolder,
) -> None:
    replicas = [in_process(slow(seeded_model)) for _ in range(2)]

    async def run() -> None:
        async with (
            serving(replicas, DirectScheduler("direct")) as address,
            InferenceClient(address) as client,
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="RuntimeError: the engine fell over"):
                await client.score("q", ["long " * 22])
            doomed = asyncio.create_task(client.score("q", ["long " * 60]))
            await until(lambda: any(replica.active for replica in replicas))
            (busy,) = (replica for replica in replicas if replica.active)
            (other,) = (replica for replica in replicas if replica is not busy)
            before, untouched = busy.pid, other.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            # The request is tried once more, and fails with the second process that dies of it
            await until(lambda: busy.active and busy.pid not in (None, before))
            second = busy.pid
            assert second is not None
            os.kill(second, signal.SIGKILL)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await doomed
            assert caught.value.code() == grpc.StatusCode.INTERNAL
            assert "was ended by SIGKILL" in (caught.value.details() or "")
            replies = await asyncio.gather(*(client.score("q", ["ok"]) for _ in range(8)))
            assert all(len(reply.scores) == 1 for reply in replies)
            await until(lambda: busy.pid not in (None, before, second) and busy.alive())
            assert other.pid == untouched
            assert (await client.metrics()).cpu_s > 0

    asyncio.run(run())
    assert all(replica.pid is None for replica in replicas)


def test_a_worker_killed_while_idle_is_replaced_and_no_request_fails(
    seeded_model: ModelFolder,
) -> None:
    async def run() -> None:
        replica = in_process(noop(seeded_model))
        async with serving([replica]) as address, InferenceClient(address) as client:
            for wait_for_idle_check in (False, True):
                assert replica.pid is not None
                # Read the pid first, since the idle check may replace a dead worker at any time
                killed = psutil.Process(replica.pid)
                killed.kill()
                if wait_for_idle_check:
                    await until(lambda pid=killed.pid: replica.pid not in (None, pid))
                else:
                    psutil.wait_procs([killed], timeout=0.1)
                assert len((await client.score("q", ["ok"])).scores) == 1

    asyncio.run(run())


def test_a_worker_process_ends_when_its_server_does(seeded_model: ModelFolder) -> None:
    program = f"""
import sys, time
from pathlib import Path
from crossbench.models.reading import read_folder
from crossbench.serving.process_engine import ProcessEngine
from tests.serving.test_processes import BATCH, slow
model = read_folder(Path({str(seeded_model.path)!r}), "m")
engine = ProcessEngine(slow(model))
engine.load_model()
print(engine.pid, flush=True)
from crossbench.types import TokenBatch
import numpy as np
ids = np.zeros(50, dtype=np.int32)
engine.infer(TokenBatch.from_lengths(ids, ids, [50]))  # never answers
"""
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    worker = psutil.Process(int(server.stdout.readline()))
    assert os.getpgid(worker.pid) == os.getpgid(server.pid)
    server.kill()
    server.wait()
    gone, _ = psutil.wait_procs([worker], timeout=60)
    assert gone


def test_a_failed_replacement_gives_the_reason_and_is_tried_again(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).hardlink_to(seeded_model.path / name)
    model = read_folder(tmp_path, "m")
    replica = in_process(noop_of(FileBackend, model))
    replica.load()
    assert replica.pid is not None
    killed = psutil.Process(replica.pid)
    (tmp_path / "model.safetensors").rename(tmp_path / "away")
    killed.kill()
    psutil.wait_procs([killed], timeout=60)
    with pytest.raises(ModelError):
        replica.infer(BATCH)
    (tmp_path / "away").rename(tmp_path / "model.safetensors")
    assert len(replica.infer(BATCH).values) == 3
    replica.close()
