"""The `curl` commands of docs/serving.md, each run against a real server."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crossbench.models.folder import ModelFolder
from tests.helpers.http import both
from tests.helpers.places import REPO
from tests.helpers.serving import noop
from tests.helpers.tiny_seeded import tiny_seeded

ADDRESS = "http://127.0.0.1:8000"


def blocks() -> list[list[str]]:
    """Return the commands of the section, one list per server."""
    text = (REPO / "docs/serving.md").read_text("utf-8")
    section = text.partition("## Other people's clients")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    starts = [at for at, line in enumerate(lines) if line.startswith("python ")]
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def curl(command: str, url: str) -> tuple[str, Any]:
    """Run one command against the server at `url`; return its path and the reply."""
    asked = next(word for word in shlex.split(command) if word.startswith(ADDRESS))
    arguments = shlex.split(command.replace(ADDRESS, url))
    done = subprocess.run(
        [*arguments, "--silent", "--show-error", "--fail-with-body", "--noproxy", "*"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    path = asked.removeprefix(ADDRESS)
    return path, json.loads(done.stdout) if path not in ("/health", "/metrics") else done.stdout


async def replies_of(model: ModelFolder, curls: list[str]) -> dict[str, Any]:
    """Run the commands against a server of `model`; return the replies by path."""
    async with both([noop(model)]) as served:
        url = served.server.http_url
        return dict([await asyncio.to_thread(curl, command, url) for command in curls])


def test_the_rerankers_examples(seeded_model: ModelFolder) -> None:
    serve, *curls = blocks()[0]
    assert "server.http.port=8000" in serve
    replies = asyncio.run(replies_of(seeded_model, curls))
    texts = {rank["text"] for rank in replies["/rerank"]}
    assert texts == {"Water that flows.", "A loaf of bread."}
    assert len(replies["/v1/rerank"]["results"]) == 1
    assert len(replies["/v2/rerank"]["results"]) == 2
    assert [item["index"] for item in replies["/score"]["data"]] == [0, 1]
    assert replies["/info"]["model_id"] == seeded_model.name
    assert 'crossbench_requests_total{status="OK"} 4.0' in replies["/metrics"]
    assert replies["/health"].startswith("HTTP/1.1 200")


def test_the_embedders_examples(tmp_path: Path) -> None:
    serve, *curls = blocks()[1]
    assert "server.http.port=8000" in serve
    replies = asyncio.run(replies_of(tiny_seeded(tmp_path, pooling="mean"), curls))
    assert len(replies["/embed"]) == 2
    assert len(replies["/v1/embeddings"]["data"][1]["embedding"]) == 32


@pytest.mark.slow
def test_the_command_prints_the_url_and_ends(environment: dict[str, str], tmp_path: Path) -> None:
    serve, *curls = blocks()[0]
    words = shlex.split(serve.replace("=8000", "=0"))[1:]
    process = subprocess.Popen(
        [sys.executable, *words, "server.port=0", "dashboard=none", "backend=noop"],
        stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = (re.search(r"listening on (http://\S+)", line) for line in process.stdout)
        url = next(match[1] for match in found if match)
        assert len(dict(curl(command, url) for command in curls)) == len(curls)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [0, 1])
def test_there_are_examples(number: int) -> None:
    assert sum(line.startswith("curl ") for line in blocks()[number]) >= 2
