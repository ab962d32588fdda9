"""Export a folder the way sentence-transformers documents: OpenVINO static int8, ONNX int8.

    .venv-peers/bin/python benchmarks/export_peers.py MODEL DATA OUT

Run it with the peers' interpreter. The calibration text is the first ten queries' pairs.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main(model: str, data: str, out: str) -> None:
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import (
        CrossEncoder,
        export_dynamic_quantized_onnx_model,
        export_static_quantized_openvino_model,
    )

    shutil.copytree(model, out, dirs_exist_ok=True)
    encoder = CrossEncoder(out, backend="openvino")
    encoder.save_pretrained(out)
    export_static_quantized_openvino_model(encoder, OVQuantizationConfig(), out)
    encoder = CrossEncoder(out, backend="onnx")
    encoder.save_pretrained(out)
    kind = "avx2" if "avx512" not in Path("/proc/cpuinfo").read_text() else "avx512_vnni"
    export_dynamic_quantized_onnx_model(encoder, kind, out)


if __name__ == "__main__":
    main(*sys.argv[1:4])
