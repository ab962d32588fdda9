"""Infinity's HTTP rerank endpoint, 4 requests of 32 in flight. Arguments: MODEL DATA PORT."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.contestants.protocol import answer_requests
from benchmarks.contestants.texts import read_pairs

CONCURRENCY = 4
BATCH = 32
START_S = 180
# The server is local, so requests must not use a proxy
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main(model: str, data: str, port: str) -> None:
    command = [
        str(Path(sys.executable).with_name("infinity_emb")),
        *("v2", "--model-id", model, "--served-model-name", "model", "--port", port),
        *("--host", "127.0.0.1", "--engine", "torch", "--device", "cpu", "--no-bettertransformer"),
    ]
    with tempfile.TemporaryDirectory() as folder:  # Infinity writes to its current directory
        server = subprocess.Popen(command, stdout=sys.stderr, cwd=folder)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(f"{url}/health", server)
            _measure_on_request(url, read_pairs(Path(data)))
        finally:
            server.terminate()
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            with DIRECT.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit("Infinity did not start")


def _measure_on_request(url: str, pairs: list[tuple[str, str]]) -> None:
    requests = []
    for start in range(0, len(pairs) - BATCH, BATCH):
        chunk = pairs[start : start + BATCH]
        body = {
            "model": "model",
            "query": chunk[0][0],
            "documents": [passage for _, passage in chunk],
        }
        requests.append(json.dumps(body).encode())
    endless = itertools.cycle(requests)

    def measure(seconds: float) -> dict[str, float]:
        lock, done, started_s = threading.Lock(), 0, time.perf_counter()

        def user() -> None:
            nonlocal done
            while time.perf_counter() - started_s < seconds:
                with lock:
                    body = next(endless)
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"{url}/rerank", body, headers)
                with DIRECT.open(request) as reply:
                    assert len(json.load(reply)["results"]) == BATCH
                with lock:
                    done += BATCH

        users = [threading.Thread(target=user) for _ in range(CONCURRENCY)]
        for thread in users:
            thread.start()
        for thread in users:
            thread.join()
        return {"pairs_per_s": done / (time.perf_counter() - started_s)}

    answer_requests(measure)


if __name__ == "__main__":
    main(*sys.argv[1:])
