"""Replicas of Ray Serve, without Ray: the calls' contexts, who may call, the sum of counters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from crossbench.models.folder import ModelFolder
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.on_ray.call import CallEnded, Gate, RayCall, peer_host
from crossbench.serving.on_ray.merging import (
    ProcessUse,
    ReplicaCounters,
    merged_info,
    merged_metrics,
)
from crossbench.serving.servicer import OwnAccount
from tests.helpers.plans import plan_of
from tests.helpers.serving import SETTINGS, gated, noop, running, until

REQUEST = pb.ScoreRequest(query="a query", passages=["one", "two"]).SerializeToString()


class SentContext:
    """Records what a replica sends back to the proxy, as Ray's own context does."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:5000", **metadata: str) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: list[tuple[str, str | bytes]] = []
        self._peer, self._metadata = peer, list(metadata.items())

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        self.trailing = trailing_metadata

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def peer(self) -> str:
        return self._peer


def test_the_rpcs_answer_as_over_grpc(seeded_model: ModelFolder) -> None:
    async def call() -> tuple[pb.ScoreResponse, SentContext]:
        async with running([noop(seeded_model)]) as server:
            servicer = server.servicer(OwnAccount(server.intake, server.info))
            answer = await servicer.Score(REQUEST, RayCall(SentContext()))
            refused = SentContext()
            with pytest.raises(CallEnded, match="INVALID_ARGUMENT"):
                await servicer.Score(b"", RayCall(refused))
            return answer, refused

    answer, refused = asyncio.run(call())
    assert len(answer.scores) == 2
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details == "the request contains no passages: send at least one"


def test_a_full_queue_keeps_its_advice(seeded_model: ModelFolder) -> None:
    """When to try again travels in the metadata of the status."""

    async def call() -> SentContext:
        backend = gated(seeded_model)
        async with running([backend], max_queue_pairs=2) as server:
            servicer = server.servicer(OwnAccount(server.intake, server.info))
            calls = []
            for _ in range(2):  # one that is computed, one that waits
                sent = RayCall(SentContext())
                calls.append(asyncio.create_task(servicer.Score(REQUEST, sent)))
                await until(lambda: backend.ran)
            await until(lambda: server.intake.metrics().queue_pairs)
            refused = SentContext()
            with pytest.raises(CallEnded):
                await servicer.Score(REQUEST, RayCall(refused))
            backend.gate.set()
            await asyncio.gather(*calls)
            return refused

    refused = asyncio.run(call())
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(refused.trailing)
    assert int(trailing["grpc-retry-pushback-ms"]) > 0
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() > 0


def test_a_server_without_a_port_computes_until_it_is_stopped(cache_dir: Path) -> None:
    plan = plan_of("backend=noop", cache_dir=cache_dir)

    async def call() -> tuple[pb.ScoreResponse, SentContext]:
        server = build_server(plan, fetch_model(plan), cores=1)
        server.start_workers()
        servicer = server.servicer(OwnAccount(server.intake, server.info))
        answer = await servicer.Score(REQUEST, RayCall(SentContext()))
        await server.stop()
        refused = SentContext()
        with pytest.raises(CallEnded):
            await servicer.Score(REQUEST, RayCall(refused))
        assert server.info.threads == 1
        return answer, refused

    answer, refused = asyncio.run(call())
    assert len(answer.scores) == 2
    assert refused.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:41182", "127.0.0.1"),
        ("ipv6:%5B::1%5D:41182", "::1"),
        ("ipv6:[fe80::1]:5", "fe80::1"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:41182", "::ffff:10.0.0.7"),
        ("unix:", ""),
    ],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert peer_host(peer) == host


def test_a_loopback_server_refuses_calls_from_other_machines() -> None:
    """Ray's proxy listens on all addresses, whatever server.host is."""
    far = SentContext("ipv4:203.0.113.9:5000")
    gate = Gate(SETTINGS)
    for peer in ("ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "ipv6:%5B::ffff:127.0.0.1%5D:1"):
        assert gate.refusal(SentContext(peer)) is None
    refusal = gate.refusal(far)
    assert refusal is not None
    assert refusal[0] is grpc.StatusCode.PERMISSION_DENIED
    assert "203.0.113.9" in refusal[1]
    assert "server.host=0.0.0.0" in refusal[1]
    assert Gate(replace(SETTINGS, host="0.0.0.0")).refusal(far) is None


def test_a_server_with_a_token_asks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token-of-twenty-letters")
    gate = Gate(replace(SETTINGS, token_file=str(file)))
    right = SentContext(authorization="Bearer a-token-of-twenty-letters")
    assert gate.refusal(right) is None
    for context in (SentContext(), SentContext(authorization="Bearer another-token-20-letters")):
        refusal = gate.refusal(context)
        assert refusal is not None
        assert refusal[0] is grpc.StatusCode.UNAUTHENTICATED


def counters(recent_ms: list[float], **values: object) -> ReplicaCounters:
    rows = np.column_stack([recent_ms] * 4) if recent_ms else np.zeros((0, 4))
    return ReplicaCounters(pb.Metrics(**values), rows)


def test_counters_are_added_and_times_are_not() -> None:
    first = counters([], requests_ok=3, pairs=30, cpu_s=1.5, uptime_s=60.0, since_reset_s=5.0)
    second = counters([], requests_ok=4, pairs=40, cpu_s=2.0, uptime_s=50.0, since_reset_s=4.0)
    merged = merged_metrics([first, second], 2)
    assert (merged.requests_ok, merged.pairs, merged.cpu_s) == (7, 70, 3.5)
    assert (merged.uptime_s, merged.since_reset_s) == (60.0, 4.0)
    assert (merged.replicas, merged.replicas_missing) == (2, 0)
    assert not merged.HasField("device_memory_mb")  # none has told it


def test_the_device_memory_of_those_that_have_some_is_added() -> None:
    parts = [counters([], device_memory_mb=10.0), counters([]), counters([], device_memory_mb=5.0)]
    assert merged_metrics(parts, 3).device_memory_mb == 15.0


def test_failures_are_added_by_status() -> None:
    first = counters([], requests_failed={"INTERNAL": 1, "CANCELLED": 2})
    second = counters([], requests_failed={"INTERNAL": 4})
    assert merged_metrics([first, second], 2).requests_failed == {"INTERNAL": 5, "CANCELLED": 2}


def test_percentiles_are_those_of_all_requests() -> None:
    """They are neither added nor averaged: a slow replica shows in the p95."""
    fast, slow = [1.0] * 90, [100.0] * 10
    merged = merged_metrics([counters(fast), counters(slow), counters([])], 3)
    for stage in (merged.latency_ms, merged.tokenize_ms, merged.queue_ms, merged.infer_ms):
        assert stage.count == 100
        assert (stage.p50, stage.p95) == (1.0, 100.0)
        assert stage.mean == pytest.approx(10.9)


def test_a_replica_that_does_not_answer_is_told() -> None:
    merged = merged_metrics([counters([], pairs=1)], 3)
    assert (merged.replicas, merged.replicas_missing) == (1, 2)


def test_a_proxy_counts_once_though_two_replicas_tell_of_it() -> None:
    proxy: Mapping[tuple[str, int], ProcessUse] = {("10.0.0.1", 7): ProcessUse(2.0, 100.0, 120.0)}
    parts = [
        ReplicaCounters(pb.Metrics(cpu_s=1.0, rss_mb=50.0), np.zeros((0, 4)), proxy)
        for _ in range(2)
    ]
    merged = merged_metrics(parts, 2)
    assert (merged.cpu_s, merged.rss_mb, merged.rss_peak_mb) == (4.0, 200.0, 120.0)


def test_workers_are_added_and_the_slowest_loads_longest() -> None:
    infos = [
        pb.ServerInfo(
            models=[pb.ModelInfo(name="model")],
            workers=2,
            threads=1,
            startup=pb.Startup(load_s=load_s, rss_after_load_mb=100.0),
        )
        for load_s in (1.0, 3.0)
    ]
    merged = merged_info(infos)
    assert (merged.workers, merged.threads, merged.models[0].name) == (4, 1, "model")
    assert (merged.startup.load_s, merged.startup.rss_after_load_mb) == (3.0, 200.0)
