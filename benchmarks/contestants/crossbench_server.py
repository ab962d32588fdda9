"""Our gRPC server and client in one process, driven with `concurrency` requests of `batch` pairs.

Arguments are crossbench's own overrides.
"""

from __future__ import annotations

import asyncio
import sys

from hydra import compose, initialize_config_dir

from benchmarks.contestants.protocol import obey
from crossbench.compose import build, build_server, check_precision, fetch_model
from crossbench.config import check_settings, conf_dir, register, to_plain
from crossbench.load.driver import ClosedLoop, Stop
from crossbench.load.requests import fill_requests
from crossbench.measure.statistics import summarise
from crossbench.models.tokenizer import PairTokenizer
from crossbench.serving.client import InferenceClient


def main(overrides: list[str]) -> None:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_plain(compose("config", overrides=overrides))
    settings = check_settings(config)
    check_precision(config, settings)
    model = fetch_model(config, settings)
    lists = build(config["dataset"]).load(PairTokenizer(model), settings.seed).lists
    load: ClosedLoop = build(config["load"])
    server = build_server(config, settings, model)
    loop = asyncio.new_event_loop()
    address = loop.run_until_complete(server.start())
    client = loop.run_until_complete(_connect(address))
    messages = fill_requests(lists, settings.batch)

    def measure(seconds: float) -> dict[str, float]:
        stop = Stop(requests=sys.maxsize, max_seconds=seconds)
        drive = load.drive(client, messages, stop, lambda _: None, asyncio.Event())
        metrics = summarise(loop.run_until_complete(drive))
        return {
            "pairs_per_s": metrics["throughput/pairs_per_s"],
            "p50_ms": metrics["latency/p50_ms"],
        }

    obey(measure)
    loop.run_until_complete(client.close())
    loop.run_until_complete(server.stop())


async def _connect(address: str) -> InferenceClient:
    return InferenceClient(address)


if __name__ == "__main__":
    main(sys.argv[1:])
