"""`python -m crossbench.selfcheck`: real runs, its options, and what it stores."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from crossbench.errors import ConfigError
from crossbench.measure.catalogue import PAIRS_PER_S
from crossbench.report.allowance import read_allowance, read_checks
from crossbench.results import load_result
from crossbench.selfcheck import default_choices, read_settings, slower_config
from tests.helpers.commands import crossbench, read_until, start
from tests.helpers.plans import config_of

pytestmark = pytest.mark.slow

MODULE = "crossbench.selfcheck"
# Runs of 100 requests, so that there is a p95
SHORT = ("requests=100", "max_seconds=10", "backend.service_us_per_pair=1", "batch=4",
         "warmup_requests=1", "warmup_max_seconds=0.2", "dataset.queries=4",
         "dataset.passages_per_query=40")  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["blocks=3"], "blocks must be a whole number, 4 or more, got 3"),
        (["blocks=many"], "got 'many'"),
        (["slower=0"], "slower must be a share between 0 and 1, got 0"),
        (["slower=true"], "got True"),
    ],
)
def test_a_wrong_option_is_refused(given: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_settings(given, "")


def test_options_have_their_defaults_in_yaml() -> None:
    settings = read_settings(["blocks=12"], "command")
    assert (settings.blocks, settings.slower) == (12, 0.05)


def test_only_noop_gets_a_service_time_and_a_slower_cell() -> None:
    assert "backend=noop" in default_choices([])
    assert "backend.service_kind=busy" in default_choices(["backend=noop"])
    assert default_choices(["backend=onnx"]) == ["tracker=none", "dashboard=none", "quality=none"]
    cell = config_of(*default_choices([]))
    slower = slower_config(cell, 0.05)
    assert slower is not None
    assert slower.value("backend.service_us_per_pair") == pytest.approx(1050)
    assert slower.value("backend.service_kind") == "busy"
    assert slower_config(config_of("backend=onnx"), 0.05) is None
    assert slower_config(config_of("backend=noop"), 0.05) is None


def test_several_cells_are_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    done = crossbench("-m", "batch=1,2", outputs=tmp_path, environment=environment, module=MODULE)
    assert done.returncode == 1
    assert "leave out -m" in done.stderr


@pytest.mark.slow
def test_a_check_measures_blocks_and_stores_the_spread(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    cache = tmp_path / "cache"
    done = crossbench(
        "blocks=4", *SHORT, f"cache_dir={cache}", outputs=tmp_path / "outputs",
        environment=environment, module=MODULE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("noop fp32 batch=4 concurrency=2: 8 runs of this cell in 4 block")
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    (folder,) = (tmp_path / "outputs").iterdir()
    cells = sorted((folder / "cells").iterdir(), key=lambda path: int(path.name))
    results = [load_result(cell) for cell in cells]
    services = [float(result.config.value("backend.service_us_per_pair")) for result in results]
    for block in range(4):
        assert sorted(services[3 * block : 3 * block + 3]) == [1.0, 1.0, 1.05]
    assert len({tuple(services[3 * block : 3 * block + 3]) for block in range(4)}) > 1
    stored = read_checks(cache, results[0].environment)["noop"]
    assert stored.runs == 8
    assert stored.spreads[PAIRS_PER_S.name].degrees == 7
    assert "blocks=4" in stored.command
    allowance = read_allowance(cache, results[0].environment, 0.1, ["noop"])
    assert "(noop, 8 runs, 20" in allowance[PAIRS_PER_S.name].source
    assert "| 4     | slower  |" in (folder / "report.md").read_text("utf-8")
    document = json.loads(next((cache / "selfcheck").iterdir()).read_text("utf-8"))
    assert document["machine"]["cpu"] == results[0].environment["cpu"]


@pytest.mark.slow
def test_an_interrupted_check_reports_and_stores_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    process = start(
        "blocks=4", *SHORT, "max_seconds=60", "requests=null", f"cache_dir={tmp_path / 'cache'}",
        outputs=tmp_path / "outputs", environment=environment, module=MODULE,
    )  # fmt: skip
    read_until(process, "measuring")
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted before 4 blocks" in out
    assert "was not stored" in out
    assert not (tmp_path / "cache" / "selfcheck").exists()
    assert list((tmp_path / "outputs").glob("selfcheck_*/report.md"))
