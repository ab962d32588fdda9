"""MLCommons LoadGen drives a gRPC server of crossbench, in an environment of its own.

    python -m benchmarks.contestants.loadgen_client ADDRESS LISTS BATCH SCENARIO PER_SECOND

LISTS is a JSON file with a list of [query, [passage, ...]]. A sample is a request of BATCH passages
of one query. SCENARIO is SingleStream, Server or Offline. PER_SECOND is the rate of Server, and
how many samples a second Offline expects, of which it sends 1.1 times as many.
"""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import mlperf_loadgen as loadgen

from benchmarks.contestants.lists import batches
from benchmarks.contestants.protocol import answer_requests
from benchmarks.contestants.raw_client import score_call

MAX_IN_FLIGHT = 64  # of Offline, as conf/load/offline.yaml has it
THROUGHPUT = {
    "SingleStream": "QPS w/ loadgen overhead",
    "Server": "Completed samples per second",
    "Offline": "Samples per second",
}
PERCENTILES = (50, 90, 99)


class System:
    """The system under test: sends each sample to the server, and reports its reply."""

    def __init__(self, call: Any, requests: Sequence[Any], max_in_flight: int | None) -> None:
        self._call = call
        self._requests = requests
        self._slots = None if max_in_flight is None else threading.Semaphore(max_in_flight)
        self.failed = 0

    def issue(self, samples: list[Any]) -> None:
        for sample in samples:
            if self._slots is not None:
                self._slots.acquire()
            reply = self._call.future(self._requests[sample.index])
            reply.add_done_callback(lambda done, number=sample.id: self._finish(done, number))

    def flush(self) -> None:
        """Nothing waits to be sent."""

    def _finish(self, done: Any, number: int) -> None:
        if done.code() is not grpc.StatusCode.OK:
            self.failed += 1
        if self._slots is not None:
            self._slots.release()
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(number, 0, 0)])


def settings_of(scenario: str, per_second: float, seconds: float, seed: int) -> Any:
    settings = loadgen.TestSettings()
    # A new seed for each round, so that its interval includes the randomness of the arrivals
    settings.schedule_rng_seed = settings.sample_index_rng_seed = settings.qsl_rng_seed = seed
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(seconds * 1000)
    settings.min_query_count = 1
    settings.server_target_qps = per_second
    settings.offline_expected_qps = per_second
    return settings


def figures(summary: str, scenario: str) -> dict[str, float]:
    """Return requests/s and percentiles of latency in ms, from LoadGen's summary."""

    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)}\s*:\s*([\d.]+)", summary, re.MULTILINE)
        if found is None:
            raise ValueError(f"LoadGen's summary has no {name!r}: {summary}")
        return float(found[1])

    return {
        "requests_per_s": value(THROUGHPUT[scenario]),
        **{f"p{q}_ms": value(f"{q}.00 percentile latency (ns)") / 1e6 for q in PERCENTILES},
    }


def main(address: str, lists: Path, batch: int, scenario: str, per_second: float) -> None:
    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    request_class, call = score_call(channel)
    requests = [
        request_class(query=query, passages=passages) for query, passages in batches(lists, batch)
    ]
    system = System(call, requests, MAX_IN_FLIGHT if scenario == "Offline" else None)
    sut = loadgen.ConstructSUT(system.issue, system.flush)
    loaded: list[int] = []
    seeds = itertools.count(1)
    qsl = loadgen.ConstructQSL(len(requests), len(requests), loaded.extend, lambda _: None)

    def measure(seconds: float) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            logs = loadgen.LogSettings()
            logs.log_output.outdir = folder
            logs.enable_trace = False
            settings = settings_of(scenario, per_second, seconds, next(seeds))
            loadgen.StartTestWithLogSettings(sut, qsl, settings, logs)
            summary = (Path(folder) / "mlperf_log_summary.txt").read_text("utf-8")
        if system.failed:
            raise ValueError(f"{system.failed} requests failed")
        return figures(summary, scenario)

    answer_requests(measure)
    loadgen.DestroyQSL(qsl)
    loadgen.DestroySUT(sut)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
