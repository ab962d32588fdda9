"""backend=openvino in bf16: computed where the CPU has it, refused where it would be fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossbench.errors import BackendUnavailable
from tests import engine_checks as checks

openvino = pytest.importorskip(
    "openvino", reason="OpenVINO is not installed: pip install 'crossbench[openvino]'"
)
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    return checks.tiny_model(tmp_path_factory.mktemp("tiny"))


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
