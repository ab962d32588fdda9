"""Export a model for benchmarks/peers.py to sentence-transformers' OpenVINO and ONNX int8.

    .venv-peers/bin/python benchmarks/export_peers.py MODEL DATA OUT

Run it with the peers' interpreter. sentence-transformers calibrates OpenVINO's int8 with a data set
from the hub. This script uses the same NNCF quantisation with pairs of the first ten queries
instead, so that it needs no network and calibrates on the kind of text that is scored.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

CALIBRATION_PAIRS = 200
OPENVINO_INT8 = "openvino_model_qint8_quantized.xml"


def main(model: str, data: str, out: str) -> None:
    shutil.copytree(model, out, dirs_exist_ok=True)
    export_openvino(Path(out), Path(data))
    export_onnx(Path(out))


def export_openvino(out: Path, data: Path) -> None:
    import nncf
    import openvino
    from sentence_transformers import CrossEncoder

    from benchmarks.contestants.texts import read_pairs

    encoder = CrossEncoder(str(out), backend="openvino", device="cpu")
    encoder.save_pretrained(str(out))
    folder = out / "openvino"
    graph = openvino.Core().read_model(folder / "openvino_model.xml")
    names = {port.get_any_name() for port in graph.inputs}
    pairs = read_pairs(data)
    first_ten = list(dict.fromkeys(query for query, _ in pairs))[:10]
    chosen = [pair for pair in pairs if pair[0] in first_ten]
    items = []
    for pair in chosen[:: max(1, len(chosen) // CALIBRATION_PAIRS)]:
        encoded = encoder.tokenizer([pair], padding=True, truncation=True, return_tensors="np")
        items.append({name: array for name, array in encoded.items() if name in names})
    quantised = nncf.quantize(
        graph,
        nncf.Dataset(items),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(items),
    )
    openvino.save_model(quantised, folder / OPENVINO_INT8, compress_to_fp16=False)


def export_onnx(out: Path) -> None:
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    encoder = CrossEncoder(str(out), backend="onnx", device="cpu")
    encoder.save_pretrained(str(out))
    has_vnni = "avx512_vnni" in Path("/proc/cpuinfo").read_text("utf-8")
    kind = "avx512_vnni" if has_vnni else "avx2"
    export_dynamic_quantized_onnx_model(encoder, kind, str(out))


if __name__ == "__main__":
    main(*sys.argv[1:4])
