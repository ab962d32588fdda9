"""The spread of a machine is stored by backend, and a report takes a cautious one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from crossbench.errors import ConfigError
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S
from crossbench.report.allowance import (
    JUDGED,
    Spread,
    StoredCheck,
    check_file,
    read_allowance,
    read_checks,
    store_check,
)
from crossbench.settings.cell_settings import check_settings
from tests.helpers.plans import config_of

MACHINE = {"host": "bench-1", "cpu": "Fast", "cores_usable": 2, "gpus": [], "os": "Linux"}
RATE, P95 = PAIRS_PER_S.name, P95_LATENCY.name


def check(backend: str, sd: float, *, degrees: int = 15) -> StoredCheck:
    spreads = {RATE: Spread(sd, degrees), P95: Spread(2 * sd, degrees)}
    return StoredCheck(backend, "2026-11-26T12:00:00+00:00", "cmd", 16, {}, None, spreads)


def test_without_a_check_the_default_is_stated(tmp_path: Path) -> None:
    found = read_allowance(tmp_path, MACHINE, 0.1, ["onnx"])
    assert found.keys() == {metric.name for metric in JUDGED}
    assert (found[RATE].relative_sd, found[RATE].degrees) == (0.1, math.inf)
    assert "default of 10 %" in found[RATE].source


def test_a_check_serves_its_own_backend_on_its_own_machine(tmp_path: Path) -> None:
    store_check(tmp_path, MACHINE, check("onnx", 0.02))
    found = read_allowance(tmp_path, MACHINE, 0.1, ["onnx"])
    assert (found[RATE].relative_sd, found[P95].relative_sd) == (0.02, 0.04)
    assert "(onnx, 16 runs, 2026-11-26)" in found[RATE].source
    assert read_allowance(tmp_path, {**MACHINE, "os": "newer"}, 0.1, ["onnx"]) == found
    other = read_allowance(tmp_path, {**MACHINE, "cpu": "Slow"}, 0.1, ["onnx"])
    assert other[RATE].relative_sd == 0.1


def test_a_backend_that_was_not_checked_gets_the_widest_spread(tmp_path: Path) -> None:
    store_check(tmp_path, MACHINE, check("onnx", 0.02))
    store_check(tmp_path, MACHINE, check("noop", 0.07))
    assert read_checks(tmp_path, MACHINE).keys() == {"onnx", "noop"}
    sd = {
        names: read_allowance(tmp_path, MACHINE, 0.1, names)[RATE].relative_sd
        for names in [("onnx",), ("onnx", "noop"), ("openvino",), ("onnx", "openvino"), ()]
    }
    assert list(sd.values()) == [0.02, 0.07, 0.1, 0.1, 0.1]
    assert read_allowance(tmp_path, MACHINE, 0.03, ["openvino"])[RATE].relative_sd == 0.07


def test_a_small_spread_of_few_runs_is_not_taken_for_a_small_one(tmp_path: Path) -> None:
    """With 2 degrees of freedom, 4 % is a wider allowance than 5 % with 30."""
    store_check(tmp_path, MACHINE, check("a", 0.04, degrees=2))
    store_check(tmp_path, MACHINE, check("b", 0.05, degrees=30))
    found = read_allowance(tmp_path, MACHINE, 0.01, ["a", "b"])
    assert found[RATE].degrees == 2


def test_a_damaged_file_counts_as_absent(tmp_path: Path) -> None:
    path = store_check(tmp_path, MACHINE, check("onnx", 0.02))
    assert path == check_file(tmp_path, MACHINE)
    for text in ("{", "[]", '{"checks": {"onnx": {"spreads": 3}}}', '{"checks": {"onnx": {}}}'):
        path.write_text(text)
        assert read_checks(tmp_path, MACHINE) == {}
    store_check(tmp_path, MACHINE, check("onnx", 0.02))
    assert read_checks(tmp_path, MACHINE) == {"onnx": check("onnx", 0.02)}


@pytest.mark.parametrize("value", ["0", "-0.1", "1", "true", "wide", "null"])
@pytest.mark.parametrize("key", ["margin", "spread"])
def test_margin_and_spread_are_shares(key: str, value: str) -> None:
    document = config_of(f"report.{key}={value}").document
    with pytest.raises(ConfigError, match=rf"report\.{key} must be a share .* report\.{key}=0\."):
        check_settings(document)


def test_margin_and_spread_are_no_part_of_a_cells_identity() -> None:
    plain, changed = config_of(), config_of("report.margin=0.05", "report.spread=0.2")
    assert check_settings(changed.document)
    assert plain.cell_id == changed.cell_id
    assert (plain.value("report.margin"), plain.value("report.spread")) == (0.02, 0.1)
