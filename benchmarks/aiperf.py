"""Compare AIPerf, NVIDIA's driver of HTTP servers, with crossbench's own, on one server, in turn.

    python -m benchmarks.aiperf --aiperf .venv-aiperf/bin/aiperf [--rounds 5] [--seconds 10]
        [--batch 8] [--in-flight 4] model=local model.path=DIR [OVERRIDES ...]

AIPerf sends TEI's form to /rerank and Cohere's to /v2/rerank, or OpenAI's to /v1/embeddings if the
model is a sentence-transformer. Our driver (target=http) sends the same requests to the same paths,
and over gRPC, with as many in flight. The server has one half of the cores, the drivers have the
other. `make aiperf` builds AIPerf's environment and runs this, on Linux. It writes
outputs/aiperf.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants.cell import open_cell
from benchmarks.loadgen import METRICS, interval, write_lists
from benchmarks.race import Contestant, Race, machine
from benchmarks.served import served
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.wording import number

GRPC = "crossbench, gRPC"
WARMUP_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What AIPerf and crossbench call an API, and its path on our server."""

    kind: str
    api: str
    path: str

    @property
    def name(self) -> str:
        return f"AIPerf, {self.path}"

    @property
    def ours(self) -> str:
        return f"crossbench, {self.path}"


RERANK = (
    Endpoint("hf-tei-rankings", "tei", "/rerank"),
    Endpoint("cohere-rankings", "cohere", "/v2/rerank"),
)
EMBED = (Endpoint("embeddings", "openai_embeddings", "/v1/embeddings"),)


@dataclass(frozen=True, slots=True)
class AIPerf:
    """Runs the command with the requests in a file. `model` is the folder, whose name is sent."""

    command: str
    url: str
    requests: Path
    name: str
    model: Path
    in_flight: int
    log: Path

    def run(self, endpoint: Endpoint, seconds: float) -> dict[str, float]:
        """Return requests/s and percentiles of latency in ms.

        Raises:
            SystemExit: AIPerf failed, or one of its requests did.
        """
        with tempfile.TemporaryDirectory() as folder, self.log.open("a") as log:
            arguments = {
                "--model": self.name,
                "--endpoint-type": endpoint.kind,
                "--endpoint": endpoint.path,
                "--url": self.url,
                "--input-file": str(self.requests),
                "--custom-dataset-type": "single-turn",
                "--concurrency": str(self.in_flight),
                "--benchmark-duration": f"{seconds:g}",
                "--warmup-request-count": str(WARMUP_REQUESTS),
                "--tokenizer": str(self.model),
                "--artifact-dir": folder,
                "--ui": "none",
            }
            words = [word for pair in arguments.items() for word in pair]
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            done = subprocess.run(
                [self.command, "profile", *words], stdout=log, stderr=log, env=environment
            )
            result = Path(folder) / "profile_export_aiperf.json"
            if done.returncode or not result.is_file():
                sys.exit(f"AIPerf failed with {endpoint.kind}, see {self.log}")
            found = json.loads(result.read_text("utf-8"))
        if found["request_error_rate"]["avg"]:
            sys.exit(f"requests of {endpoint.kind} failed: {found['error_summary']}")
        latency = found["request_latency"]
        return {
            "requests_per_s": found["request_throughput"]["avg"],
            **{f"p{q}_ms": latency[f"p{q}"] for q in (50, 90, 99)},
        }


def halves() -> tuple[list[int], list[int]]:
    """Return the cores of the server and those of the drivers.

    AIPerf has nine processes. On the server's cores they would slow the server, and the comparison
    of the drivers would only show that.
    """
    cores = sorted(os.sched_getaffinity(0))
    middle = max(1, len(cores) // 2)
    return cores[:middle], cores[middle:] or cores


def write_requests(lists: Path, batch: int, embeds: bool, path: Path) -> None:
    """Write the requests in AIPerf's form, one per line."""
    with path.open("w", encoding="utf-8") as file:
        for query, passages in json.loads(lists.read_text("utf-8")):
            for start in range(0, len(passages), batch):
                texts = passages[start : start + batch]
                named = [{"name": "passages", "contents": texts}]
                if not embeds:
                    named.insert(0, {"name": "query", "contents": [query]})
                file.write(json.dumps({"texts": named}) + "\n")


def report(
    taken: dict[str, list[dict[str, float]]], endpoints: Sequence[Endpoint], about: str
) -> str:
    """Return a table with the interval of each metric, and of AIPerf's ratio to our driver's."""
    beside = {endpoint.name: endpoint.ours for endpoint in endpoints}
    rows = []
    for name, rounds in taken.items():
        for key, label in METRICS.items():
            mean, low, high = interval([entry[key] for entry in rounds])
            ratio = ""
            if name in beside:
                each = [a[key] / b[key] for a, b in zip(rounds, taken[beside[name]], strict=True)]
                middle, least, most = interval(each)
                ratio = f"{middle:.3f} ({least:.3f} to {most:.3f})"
            rows.append((name, label, f"{number(mean)} ({number(low)} to {number(high)})", ratio))
    header = ("driver", "metric", "mean (95 %)", "ratio to ours, same path")
    return "\n\n".join([about, markdown_table(header, rows, "llrr")])


def measure(
    aiperf: AIPerf,
    endpoints: Sequence[Endpoint],
    ours: Sequence[Contestant],
    rounds: int,
    seconds: float,
) -> dict[str, list[dict[str, float]]]:
    names = [GRPC, *(name for item in endpoints for name in (item.ours, item.name))]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    race = Race(list(ours), aiperf.log)
    try:
        for name, reason in race.missing.items():
            sys.exit(f"{name}: {reason}")
        for _ in range(rounds):
            for name, found in race.run(1, seconds).items():
                taken[name] += found
            for endpoint in endpoints:
                taken[endpoint.name].append(aiperf.run(endpoint, seconds))
    finally:
        race.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aiperf", required=True, help="the command of AIPerf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=8, help="pairs or texts per request")
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("overrides", nargs="*", help="crossbench overrides")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("an interval needs at least 2 rounds: give --rounds 5")
    folder = outputs_dir()
    folder.mkdir(exist_ok=True)
    log = folder / "aiperf.log"
    cell = open_cell([*given.overrides, "backend=noop"])
    embeds = cell.model.embedding is not None
    endpoints = EMBED if embeds else RERANK
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        lists, requests = Path(place) / "lists.json", Path(place) / "requests.jsonl"
        write_lists(cell.lists, given.batch, lists)
        write_requests(lists, given.batch, embeds, requests)
        overrides = ["dashboard=none", "server.http.port=0", *given.overrides]
        server_cores, driver_cores = halves()
        os.sched_setaffinity(0, server_cores)
        server = stack.enter_context(served(overrides))
        os.sched_setaffinity(0, driver_cores)
        url = re.search(r"listening on (http://\S+)", server.log.read_text("utf-8"))
        assert url is not None
        aiperf = AIPerf(
            given.aiperf, url[1], requests, cell.model.name, cell.model.path, given.in_flight, log
        )
        own = ["load=closed", f"batch={given.batch}", f"concurrency={given.in_flight}"]
        own += ["load.task=embed"] if embeds else []
        client = [sys.executable, "-m", "benchmarks.contestants.our_client"]
        ours = [Contestant(GRPC, [*client, server.address, str(lists), "1", *own])]
        for endpoint in endpoints:
            target = ["target=http", f"target.api={endpoint.api}"]
            command = [*client, url[1], str(lists), "1", *own, *target]
            ours.append(Contestant(endpoint.ours, command))
        taken = measure(aiperf, endpoints, ours, given.rounds, given.seconds)
    about = (
        f"{machine()}; {given.rounds} rounds of {given.seconds:g} s, {given.in_flight} requests of "
        f"{given.batch} in flight; server on {len(server_cores)} of the cores, drivers on "
        f"{len(driver_cores)}; {' '.join(given.overrides)}"
    )
    text = report(taken, endpoints, about)
    print(text)
    (folder / "aiperf.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
