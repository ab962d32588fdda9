"""The studies of conf/experiment: each composes, sweeps the right keys and can be overridden."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from crossbench.models.folder import ModelFolder
from crossbench.report.axes import full_label
from crossbench.report.sweep import read_runs
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.choices import question
from crossbench.settings.overrides import sweep_points, sweeper_params, swept_keys
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import composed_config, make_plan
from crossbench.settings.schema import register

# study: (backend, batch, concurrency, what it sweeps, cells)
STUDIES = {
    "01_backend_pytorch": ("pytorch", 32, 1, set(), 1),
    "02_backend_mps": ("mps", 32, 1, set(), 1),
    "03_backend_mlx": ("mlx", 32, 1, set(), 1),
    "04_backend_compiled": ("compiled", 32, 1, set(), 1),
    "05a_batch_size_mps": ("mps", 32, 1, {"batch"}, 6),
    "05b_batch_size_mlx": ("mlx", 32, 1, {"batch"}, 6),
    "06a_concurrency_mps": ("mps", 32, 1, {"concurrency"}, 5),
    "06b_concurrency_mlx": ("mlx", 32, 1, {"concurrency"}, 5),
    "07_multi_model": ("pytorch", 32, 4, {"load.models"}, 2),
    "08a_dynamic_batch": ("packed", 4, 16, {"scheduler"}, 2),
    "08a_dynamic_batch_mps": ("mps", 4, 16, {"scheduler"}, 2),
    "08b_dynamic_batch_mlx": ("mlx", 4, 16, {"scheduler"}, 2),
    "09a_padding_baseline": ("pytorch", 32, 4, {"scheduler"}, 2),
    "09b_padding_length_aware": ("pytorch", 32, 4, {"scheduler"}, 2),
    "10_multi_model_pool": ("pytorch", 32, 4, {"pool"}, 2),
    "10b_packing_enabled": ("pytorch", 32, 4, {"backend"}, 2),
    "11_multi_model_replicas": ("pytorch", 32, 4, {"pool.workers", "pool.routing"}, 4),
    "12_multi_model_smart_idle": ("pytorch", 32, 4, {"pool.idle_seconds"}, 2),
    "13_tuning_process_pool": ("pytorch", 32, 8, {"pool.workers"}, 3),
    "14_optimized_production": ("mps", 32, 8, set(), 1),
    "15_production_optimal": ("mps", 96, 1, set(), 1),
    "16_max_length": ("pytorch", 32, 1, {"model.max_length"}, 4),
    "17_compile_mode": ("compiled", 32, 1, {"backend.mode"}, 3),
    "18_queue_stress": ("pytorch", 32, 1, {"concurrency"}, 4),
    "19_tokenizer_pool": ("pytorch", 64, 8, {"pool.tokenizers", "pipeline"}, 6),
    "20_stages": ("pytorch", 32, 1, {"pipeline"}, 3),
    "21_quantization": ("onnx", 32, 1, {"quant"}, 5),
}
PREDECESSOR_PAIRS_PER_S = {
    "01_backend_pytorch": {457.1},
    "02_backend_mps": {532.5},
    "03_backend_mlx": {520},
    "05a_batch_size_mps": {532.5, 813.6},
    "15_production_optimal": {813.6},
}


@pytest.fixture(scope="module")
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


@functools.cache  # composing takes a fifth of a second
def composed(*overrides: str) -> DictConfig:
    return compose("config", overrides=list(overrides), return_hydra_config=True)


def cell(*overrides: str) -> CellConfig:
    return composed_config(composed(*overrides))


def points(study: str, *given: str) -> list[list[str]]:
    """Return the overrides of each cell of `-m +experiment=study given…`."""
    task = [f"+experiment={study}", *given]
    swept = sweeper_params(composed(task[0]).hydra.sweeper.params or {}, task)
    return sweep_points([*(f"{key}={value}" for key, value in swept.items()), *task])


@pytest.mark.usefixtures("hydra")
def test_repeats_are_blocks_at_any_position() -> None:
    for given in (("scheduler=direct,dynamic", "repeat=1,2"), ("++repeat=1,2", "batch=4")):
        found = points("08a_dynamic_batch", *given)
        stripped = [[word.lstrip("+") for word in point] for point in found]
        assert ["repeat=1" in point for point in stripped] == [True, True, False, False]
        assert ["scheduler=direct" in point for point in stripped] == [True, False, True, False]


@pytest.mark.usefixtures("hydra")
def test_the_name_of_a_cell_has_every_swept_key() -> None:
    found = points("08a_dynamic_batch", "repeat=1,2", "pool.workers=1,2", "++backend.streams=3")
    axes = swept_keys(found)
    assert set(axes) == {"repeat", "scheduler", "pool.workers"}
    names = [full_label(cell(*point), axes) for point in found]
    assert len(set(names)) == len(found) == 8
    assert names[0].startswith("packed fp32 batch=4 concurrency=16 ")
    assert {"repeat=1", "direct", "workers=1"} < set(names[0].split())


def test_the_table_has_every_study() -> None:
    assert {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")} == set(STUDIES)


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.usefixtures("hydra")
def test_a_study_sweeps_the_expected_keys(study: str) -> None:
    backend, batch, concurrency, swept, cells = STUDIES[study]
    config = composed(f"+experiment={study}")
    assert (config.backend.name, config.batch, config.concurrency) == (backend, batch, concurrency)
    assert set(config.hydra.sweeper.params or {}) == swept
    found = points(study)
    assert len(found) == cells
    assert len(set(map(tuple, found))) == cells
    first, last = cell(*found[0]), cell(*found[-1])
    for config in (first, last):
        make_plan(config)
    assert (first.cell_id == last.cell_id) == (cells == 1)
    assert first.value("study").endswith("?")
    assert (
        question(conf_dir() / "experiment" / f"{study}.yaml")
        == composed(f"+experiment={study}").study
    )  # `suite --help` reads it without composing


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.usefixtures("hydra")
def test_a_study_has_the_figures_of_the_predecessor(study: str) -> None:
    head = (conf_dir() / "experiment" / f"{study}.yaml").read_text("utf-8")
    comments = " ".join(line for line in head.splitlines() if line.startswith("# "))
    assert "predecessor system" in comments
    entries = cell(f"+experiment={study}").section("predecessor")
    known = {
        entry["metrics"]["throughput/pairs_per_s"]
        for key, entry in entries.items()
        if key != "machine"
    }
    quoted = {float(text) for text in re.findall(r"([\d.]+) pairs/s", comments)}
    assert quoted <= known
    assert quoted == PREDECESSOR_PAIRS_PER_S.get(study, quoted)


@pytest.mark.usefixtures("hydra")
def test_the_command_line_wins_over_a_study() -> None:
    assert len(points("05a_batch_size_mps", "backend=openvino")) == 6
    assert len(points("05a_batch_size_mps", "batch=4")) == 1
    assert len(points("05a_batch_size_mps", "++batch=4,5")) == 2
    assert len(points("10b_packing_enabled", "backend=openvino")) == 1
    assert len(points("10b_packing_enabled", "batch=4,5")) == 4
    (point,) = points("15_production_optimal", "backend=noop", "batch=8")
    config = cell(*point)
    assert (config.value("backend"), config.value("batch")) == ("noop", 8)
    assert "backend=noop with one request of 8 pairs" in config.value("study")


@pytest.mark.usefixtures("hydra")
def test_settings_of_reports_change_no_identity() -> None:
    with_figures, without = cell("+experiment=02_backend_mps"), cell("backend=mps")
    assert with_figures.section("predecessor")
    assert not without.section("predecessor")
    assert with_figures.cell_id == without.cell_id
    assert cell("backend=mps", "report.latency_bound_ms=200").cell_id == without.cell_id


def run_study(outputs: Path, model: ModelFolder, *arguments: str) -> Path:
    """Run `python -m crossbench -m arguments…` and return the folder of the sweep."""
    done = subprocess.run(
        [sys.executable, "-m", "crossbench", "-m", *arguments, "tracker=none", "dashboard=none",

         "warmup_requests=1", "warmup_max_seconds=0.2", "stop=fixed",
         "dataset.queries=4", "dataset.passages_per_query=40",
         f"hydra.sweep.dir={outputs}"],
        capture_output=True, text=True, timeout=240,
        env={**os.environ, "CROSSBENCH_CACHE": str(model.path.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return outputs


def metrics(folder: Path, name: str) -> Sequence[float]:
    return [run.result.metrics[name] for run in read_runs(folder)]


def test_a_study_on_another_backend(tmp_path: Path, seeded_model: ModelFolder) -> None:
    given = ("+experiment=05a_batch_size_mps", "backend=noop", "++batch=32,96", "requests=20")
    folder = run_study(tmp_path / "sweep", seeded_model, *given)
    assert [run.result.config.value("batch") for run in read_runs(folder)] == [32, 96]
    text = (folder / "report.md").read_text("utf-8")
    assert "*At how many pairs per request is backend=noop fastest?*" in text
    section = text.split("## Comparison with the predecessor system")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert [re.split(r" *\| *", row)[1] for row in rows[2:]] == [
        "predecessor: mps batch=32 concurrency=1",
        "this run: noop batch=32",
        "predecessor: mps batch=96 concurrency=1",
        "this run: noop batch=96",
    ]
    assert "M-series Mac" in rows[2]
    assert "532" in rows[2]
    rate = metrics(folder, "throughput/pairs_per_s")[0]
    assert float(re.split(r" *\| *", rows[3])[7].rstrip("×")) == pytest.approx(
        rate / 532.5, rel=0.01
    )


@pytest.mark.slow
def test_two_models_of_which_one_is_rarely_used(tmp_path: Path, seeded_model: ModelFolder) -> None:
    given = ("+experiment=12_multi_model_smart_idle", "backend=noop", "requests=32", "batch=2")
    folder = run_study(tmp_path / "sweep", seeded_model, *given)
    assert metrics(folder, "requests/ok") == [32, 32]
    model = read_runs(folder)[0].result.model
    assert (model["name"], model["also_served"]) == ("minilm-l6-seeded", ["second"])


@pytest.mark.slow
def test_a_short_queue_refuses_excess_requests(tmp_path: Path, seeded_model: ModelFolder) -> None:
    small = ("+experiment=18_queue_stress", "concurrency=2,16", "server.max_queue_pairs=48")
    limits = ("model.layers=1", "requests=200", "max_seconds=3")
    folder = run_study(tmp_path / "sweep", seeded_model, *small, *limits)
    refused = metrics(folder, "requests/failed")
    assert refused[0] < refused[1]
    assert all(metrics(folder, "requests/ok"))
