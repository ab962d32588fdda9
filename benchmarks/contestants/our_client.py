"""crossbench's own driver of a server that is already running.

    python -m benchmarks.contestants.our_client ADDRESS LISTS PER_SECOND [OVERRIDES ...]

LISTS is a JSON file with a list of [query, [passage, ...]]. The overrides choose the load and the
size of requests; with target=http, they go to the HTTP API of ADDRESS, http://HOST:PORT. With
load=offline, 1.1 times as many requests are sent as PER_SECOND times the seconds, as LoadGen does
it; any other load sends for the seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from pathlib import Path

from benchmarks.contestants.cell import plan_of
from benchmarks.contestants.protocol import answer_requests
from crossbench.load.precise_loop import precise_event_loop
from crossbench.load.protocol import Load
from crossbench.load.requests import Requests
from crossbench.load.sender import Sender
from crossbench.load.stop import Limits, LimitWatch
from crossbench.measure import catalogue
from crossbench.measure.statistics import summarise
from crossbench.runner.http_target import HttpServer
from crossbench.runner.load import build_traffic
from crossbench.serving.client import InferenceClient
from crossbench.serving.endpoint import Endpoint
from crossbench.types import QueryPassages, Task

OFFLINE_SHARE = 1.1
LONGEST_S = 600.0


def main(address: str, lists: Path, per_second: float, overrides: list[str]) -> None:
    url = [f"target.url={address}"] if "target=http" in overrides else []
    common = [*overrides, *url, "backend=noop", "stop=fixed", f"max_seconds={LONGEST_S:g}"]
    plan = plan_of(common)
    traffic = build_traffic(plan)
    seeds = itertools.count(1)
    options = traffic.options
    given = json.loads(lists.read_text("utf-8"))
    texts = [QueryPassages("", query, ("",) * len(found), tuple(found)) for query, found in given]
    loop = precise_event_loop()
    requests = Requests(texts, plan.settings.batch, task=Task(options.task))

    async def connect() -> Endpoint:
        target = plan.target.build()
        return target.client() if isinstance(target, HttpServer) else InferenceClient(address)

    stack = contextlib.AsyncExitStack()
    client = loop.run_until_complete(connect())
    loop.run_until_complete(stack.enter_async_context(client))

    async def drive(load: Load, limits: Limits) -> Sender:
        sender = Sender(client, requests, options.timeout_s, LimitWatch(limits), asyncio.Event())
        await load.drive(sender)
        return sender

    def measure(seconds: float) -> dict[str, float]:
        limits = Limits(requests=None, max_seconds=seconds)
        if traffic.load.name == "offline":
            count = max(1, round(per_second * seconds * OFFLINE_SHARE))
            limits = Limits(requests=count, max_seconds=LONGEST_S)
        # A new seed for each round, so that its interval includes the randomness of the arrivals
        load = build_traffic(plan_of([*common, f"seed={next(seeds)}"])).load
        records = loop.run_until_complete(drive(load, limits)).records
        metrics = summarise(records, Task(options.task))
        failed = sum(not record.ok for record in records)
        if failed:
            raise ValueError(f"{failed} of {len(records)} requests failed")
        return {
            "requests_per_s": metrics[catalogue.REQUESTS_PER_S.name],
            **{f"p{q}_ms": metrics[catalogue.latency(q).name] for q in (50, 90, 99)},
        }

    answer_requests(measure)
    loop.run_until_complete(stack.aclose())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
