"""Tests of the engines that run our own graphs: backend=onnx and backend=openvino."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from crossbench.backends.artifacts import Artifact
from crossbench.errors import BackendUnavailable, ConfigError, ModelError, UnsupportedQuant
from tests.helpers import engine_checks as checks


@dataclass(frozen=True)
class Engine:
    name: str
    library: str
    weights: str  # the artifact's file with the weights
    precisions: str  # as listed in an error message
    refused: str  # an unsupported precision


ENGINES = (
    Engine("onnx", "onnxruntime", "encoder.onnx.data", "fp32, int8", "bf16"),
    Engine("openvino", "openvino", "encoder.bin", "fp32, bf16, int8", "fp16"),
)


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    pytest.importorskip(
        found.library, reason=f"not installed: pip install 'crossbench[{found.name}]'"
    )
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("cls_only", [True, False])
def test_fp32_scores_equal_transformers(engine, tiny, cache_dir, cls_only):
    batch = checks.tiny_batch()
    backend = checks.backend(engine.name, tiny, "fp32", cache_dir, cls_only=cls_only)
    result = backend.infer(batch)
    np.testing.assert_allclose(result.values, checks.reference(tiny, batch), atol=1e-4)
    assert result.tokens_computed >= batch.total_tokens


@pytest.mark.parametrize(
    ("quant", "scaled"), [("fp32", []), ("int8", []), ("int8", ["down", "0.qkv"])], ids=str
)
def test_a_score_does_not_depend_on_its_batch(engine, tiny, cache_dir, quant, scaled):
    """This includes int8, except for rounding: scales are per token or calibrated.

    A different order of summation can move an activation across a rounding boundary, by one step of
    255. The tolerance is therefore 2 % of the scores' standard deviation for int8, and 1e-5 for
    fp32.
    """
    backend = checks.backend(engine.name, tiny, quant, cache_dir, int8={"token_scales": scaled})
    batch = checks.tiny_batch()
    limit = 1e-5 if quant == "fp32" else 0.02 * float(backend.infer(batch).values.std())
    alone, among_long, among_short = checks.scores_in_batches(backend, batch, 1)
    assert among_long == pytest.approx(alone, abs=limit)
    assert among_short == pytest.approx(alone, abs=limit)


def test_a_damaged_artifact_is_built_again(engine, tiny, tmp_path):
    batch = checks.tiny_batch()
    before = checks.backend(engine.name, tiny, "fp32", tmp_path).infer(batch).values
    (weights,) = (tmp_path / engine.name).glob(f"*/{engine.weights}")
    weights.write_bytes(weights.read_bytes()[:-100] + b"x" * 100)
    after = checks.backend(engine.name, tiny, "fp32", tmp_path).infer(batch).values
    np.testing.assert_array_equal(after, before)
    assert [folder.name[0] for folder in (tmp_path / engine.name).iterdir()].count(".") == 0


def test_error_for_a_missing_library_says_how_to_install_it(engine, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, engine.library, None)  # makes the import fail
    with pytest.raises(BackendUnavailable, match=rf"pip install 'crossbench\[{engine.name}\]'"):
        checks.backend(engine.name, tiny, "fp32", tmp_path)


def test_unsupported_precisions_and_options_are_refused(engine, tiny, tmp_path):
    with pytest.raises(UnsupportedQuant, match=engine.precisions):
        checks.backend(engine.name, tiny, engine.refused, tmp_path)
    with pytest.raises(ConfigError, match=r"int8\.token_scales names batch"):
        checks.backend(engine.name, tiny, "int8", tmp_path, int8={"token_scales": ["batch"]})
    with pytest.raises(ConfigError, match=r"nowhere\.tsv"):
        checks.backend(engine.name, tiny, "int8", tmp_path, int8={"text": "nowhere.tsv"})


@pytest.mark.slow
def test_a_cell_builds_its_artifact_in_another_process(tiny, tmp_path):
    """So the memory of torch and of the float weights is not part of the measurement."""
    pytest.importorskip("onnxruntime")
    program = """
import subprocess
import sys
from hydra import compose, initialize_config_dir
from crossbench.runner.compose import build_server
from crossbench.runner.models import fetch_model
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import composed_plan
from crossbench.settings.schema import register
register()
with initialize_config_dir(str(conf_dir()), version_base="1.3"):
    plan = composed_plan(compose("config", overrides=sys.argv[1:]))
server = build_server(plan, fetch_model(plan))
print(sorted({"torch", "crossbench.backends.onnx_graph"} & sys.modules.keys()))
"""
    given = ("backend=onnx", "quant=int8", "model=local", f"model.path={tiny.path}")
    command = [sys.executable, "-c", program, *given, "batch=2", f"cache_dir={tmp_path}"]
    command.append("model.max_length=128")
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout == "[]\n", done.stderr
    assert len(list((tmp_path / "onnx").glob("*/manifest.json"))) == 1


PROGRAM = """
import sys, time
from pathlib import Path
from crossbench.backends.artifacts import Artifact
folder, log = map(Path, sys.argv[1:])
def build(draft):
    with log.open("a") as file:
        file.write("built")
    time.sleep(0.5)
    (draft / "graph").write_text("whole")
print((Artifact(folder, build).fetch() / "graph").read_text(), end="")
"""


def test_concurrent_processes_build_an_artifact_once(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache/key"), str(tmp_path / "log")]
    left = tmp_path / "cache/.key-0"  # by a process that was killed
    left.mkdir(parents=True)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=100)[0] for process in processes] == ["whole"] * 3
    assert (tmp_path / "log").read_text() == "built"
    assert not left.exists()


def test_error_for_an_unwritable_cache_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("blocks the folder's path")
    artifact = Artifact(tmp_path / "file/key", lambda draft: None)
    with pytest.raises(ModelError, match=r"give another cache folder with cache_dir=DIR"):
        artifact.fetch()
