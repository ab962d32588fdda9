"""`crossbench.run` and `crossbench.sweep`, and the examples of docs/python.md."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

import crossbench
from crossbench.errors import MeasuringFailed
from crossbench.models.folder import ModelFolder
from tests.helpers.places import REPO
from tests.helpers.serving import noop, serving

QUICK = [
    "backend=noop", "tracker=none", "dashboard=none", "stop=fixed", "max_seconds=0.5",
    "warmup_requests=1", "warmup_max_seconds=0.2", "dataset.queries=4", "quality=none",
]  # fmt: skip


def examples() -> list[str]:
    text = (REPO / "docs" / "python.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_run_returns_the_row_of_its_cell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cell = crossbench.run([*QUICK, f"outputs_dir={tmp_path}", "batch=3"])
    assert (cell["status"], cell["batch"]) == ("finished", 3)
    assert Path(cell["folder"]).parents[1] == tmp_path
    assert "measuring" in capfd.readouterr().err


def test_what_cannot_be_measured_raises_the_message_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(MeasuringFailed, match=r"no key batchh.*Did you mean batch\?"):
        crossbench.run(["batchh=3", f"outputs_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_the_version_is_that_of_the_package() -> None:
    assert re.match(r"\d+\.\d+", crossbench.__version__)


@pytest.mark.slow
def test_the_examples_measure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quick = ", ".join(f'"{word}"' for word in [*QUICK[1:], f"outputs_dir={tmp_path}"])
    code = examples()[0].replace('"max_seconds=5"', quick)
    assert code.count(str(tmp_path)) == 2
    exec(compile(code, "python.md", "exec"), {})
    printed = capfd.readouterr().out
    assert printed.startswith("finished ")
    assert re.search(r"batch\s+throughput/pairs_per_s\s+latency/p95_ms\n0\s+8 .*\n1\s+32 ", printed)


def test_the_example_ranks(seeded_model: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with serving([noop(seeded_model)]) as address:
            code = examples()[1].replace("127.0.0.1:50051", address)
            await asyncio.to_thread(exec, compile(code, "python.md", "exec"), {})

    asyncio.run(run())
    first, second = capfd.readouterr().out.splitlines()
    assert first.endswith("A river is water that flows.")
    assert second.endswith("Rivers end in the sea.")
