"""Tests of backend=openvino: int8 products or int8 weights only, and bf16 if the CPU has it."""

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


@pytest.mark.parametrize(
    ("products", "kernel_type", "limit"),
    [("int8", "i8", 0.8), ("rest", "bf16", 0.7) if HAS_BF16 else ("rest", "f32", 0.4)],
)
def test_int8_products_and_int8_weights_only(tiny, tmp_path, products, kernel_type, limit):
    """The limits are relative to the scores' standard deviation.

    They are high because the tiny model's large weights amplify rounding errors.
    """
    batch = checks.tiny_batch()
    engine = checks.backend("openvino", tiny, "int8", tmp_path, int8_products=products)
    executed = {kernel.lower() for kernel in engine.precisions if not kernel.startswith("weights_")}
    assert any(kernel.endswith(kernel_type) for kernel in executed), executed
    assert ("weights_i8" in engine.precisions) == (products == "rest")
    assert ("weights alone" in engine.encoder) == (products == "rest")
    fp32 = checks.backend("openvino", tiny, "fp32", tmp_path)
    assert engine.memory().model_mb < 0.9 * fp32.memory().model_mb
    expected = checks.reference(tiny, batch)
    drift = np.abs(engine.infer(batch).values - expected).max() / expected.std()
    assert 0 < drift < limit


def test_an_unknown_value_of_int8_products_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="int8, rest, auto"):
        checks.backend("openvino", tiny, "int8", tmp_path, int8_products="fp16")


@pytest.mark.skipif(HAS_BF16, reason="OpenVINO computes bf16 on this CPU")
def test_bf16_is_refused_if_the_cpu_lacks_it(tiny, tmp_path: Path):
    with pytest.raises(BackendUnavailable, match="bf16"):
        checks.backend("openvino", tiny, "bf16", tmp_path)


@pytest.mark.skipif(not HAS_BF16, reason="OpenVINO has no bf16 on this CPU")
def test_bf16_runs_in_bf16(tiny, tmp_path: Path):
    batch = checks.tiny_batch()
    engine = checks.backend("openvino", tiny, "bf16", tmp_path)
    assert any("bf16" in kernel.lower() for kernel in engine.precisions)
    np.testing.assert_allclose(engine.infer(batch).values, checks.reference(tiny, batch), atol=0.2)


# Load a pickled backend in several forks; in each, two threads convert a type at the same time
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
    signal.alarm(10)  # ends a process that hangs
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
        sys.exit("two threads are deadlocked")
"""


def test_two_threads_may_convert_types_at_once(tiny, tmp_path: Path):
    """Without the fix, two threads that make the first type conversion at once can deadlock.

    One holds an OpenVINO lock and waits for the GIL, which the other holds. It does not happen in
    every run, so the test tries several times.
    """
    engine = checks.backend("openvino", tiny, "fp32", tmp_path)  # builds the graph
    backend = pickle.dumps(dataclasses.replace(engine))
    done = subprocess.run(
        [sys.executable, "-c", CONVERT_AT_ONCE], input=backend, stderr=subprocess.PIPE, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
