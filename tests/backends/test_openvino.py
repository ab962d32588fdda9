"""backend=openvino: int8 in full or of the weights alone; bf16, refused where it would be fp32."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossbench.errors import BackendUnavailable, ConfigError
from tests.helpers import engine_checks as checks

openvino = pytest.importorskip(
    "openvino", reason="OpenVINO is not installed: pip install 'crossbench[openvino]'"
)
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("products", "kept", "limit"), [("int8", "i8", 0.8), ("rest", "f32", 0.4)])
def test_int8_is_of_the_products_or_of_the_weights_alone(tiny, tmp_path, products, kept, limit):
    """The limits are shares of the scores' spread; the tiny model's wide weights round badly."""
    batch = checks.tiny_batch()
    engine = checks.backend("openvino", tiny, "int8", tmp_path, int8_products=products)
    executed = {kernel.lower() for kernel in engine.precisions if not kernel.startswith("weights_")}
    assert any(kernel.endswith(kept) for kernel in executed), executed
    assert ("weights_i8" in engine.precisions) == (products == "rest")
    assert ("weights alone" in engine.encoder) == (products == "rest")
    fp32 = checks.backend("openvino", tiny, "fp32", tmp_path)
    assert engine.memory().model_mb < 0.9 * fp32.memory().model_mb
    expected = checks.reference(tiny, batch)
    drift = np.abs(engine.infer(batch).values - expected).max() / expected.std()
    assert 0 < drift < limit


def test_other_products_are_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="int8, rest, auto"):
        checks.backend("openvino", tiny, "int8", tmp_path, int8_products="fp16")


@pytest.mark.skipif(HAS_BF16, reason="OpenVINO computes bf16 on this CPU")
def test_bf16_is_refused_where_it_would_be_fp32(tiny, tmp_path: Path):
    with pytest.raises(BackendUnavailable, match="bf16"):
        checks.backend("openvino", tiny, "bf16", tmp_path)


@pytest.mark.skipif(not HAS_BF16, reason="OpenVINO has no bf16 on this CPU")
def test_bf16_runs_in_bf16(tiny, tmp_path: Path):
    batch = checks.tiny_batch()
    engine = checks.backend("openvino", tiny, "bf16", tmp_path)
    assert any("bf16" in kernel.lower() for kernel in engine.precisions)
    np.testing.assert_allclose(engine.infer(batch).values, checks.reference(tiny, batch), atol=0.2)


# Loads a pickled backend in fresh forks; in each, two threads convert a type at once
CONVERT_AT_ONCE = """
import os, pickle, signal, sys, threading
import openvino

backend = pickle.loads(sys.stdin.buffer.read())
together = threading.Barrier(2)

def convert():
    together.wait()
    openvino.Type.f32.to_dtype()

def child():
    backend.load_model()
    signal.alarm(10)  # which ends a process that hangs
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=convert) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)

for _ in range(6):
    if not (pid := os.fork()):
        child()
    if os.waitpid(pid, 0)[1]:
        sys.exit("two threads hang")
"""


def test_two_threads_may_convert_types_at_once(tiny, tmp_path: Path):
    """Every first infer() converts OpenVINO's types to NumPy's. Where two threads are the first to
    do so, they can wait for each other for ever: one holds a lock of OpenVINO's and wants the
    interpreter's, the other has that one. It does not happen in every run, hence several."""
    engine = checks.backend("openvino", tiny, "fp32", tmp_path)  # makes the graph
    backend = pickle.dumps(dataclasses.replace(engine))
    done = subprocess.run(
        [sys.executable, "-c", CONVERT_AT_ONCE], input=backend, stderr=subprocess.PIPE, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
