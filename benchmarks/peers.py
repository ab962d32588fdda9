"""Compare crossbench's server with other ways to serve a reranker on the same model and machine.

    python -m benchmarks.peers --model DIR --data DIR [--peers-python .venv-peers/bin/python]

crossbench is measured end to end over gRPC, with 4 requests of 32 passages in flight.
sentence-transformers' predict is called within its process, without a server, on 128 pairs at a
time. It sorts them by length, so that batch 8 means transformers' padded forward pass on sorted
batches of 8. Infinity is measured over its HTTP rerank endpoint, with 4 requests of 32 in flight.
The measurements are interleaved. The peers are not dependencies of crossbench: they have their own
environments, which `make peers MODEL=DIR DATA=DIR` builds before it runs this benchmark.

It writes outputs/peers.md and outputs/peers.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.race import Contestant, Race, machine, ratios, speed_table
from crossbench.backends.cpu_features import has_bf16
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir

PAIRS_PER_CALL = "128"  # as many as in 4 requests of 32
OURS = {
    "crossbench openvino int8": ("backend=openvino", "quant=int8"),
    "crossbench openvino fp32": ("backend=openvino", "quant=fp32"),
    "crossbench openvino bf16": ("backend=openvino", "quant=bf16"),
    "crossbench onnx int8": ("backend=onnx", "quant=int8"),
    "crossbench onnx fp32": ("backend=onnx", "quant=fp32"),
    "crossbench packed fp32": ("backend=packed",),
    "crossbench packed bf16": ("backend=packed", "quant=bf16"),
    "crossbench compiled fp32": ("backend=compiled",),
    "crossbench compiled bf16": ("backend=compiled", "quant=bf16"),
}


def our_contestants(model: str, data: str, names: list[str]) -> list[Contestant]:
    common = [
        *("model=local", f"model.path={model}", "dataset=trec", f"dataset.path={data}"),
        *("batch=32", "concurrency=4"),
    ]
    module = "benchmarks.contestants.crossbench_server"
    return [
        Contestant(name, [sys.executable, "-m", module, *common, *overrides])
        for name, overrides in OURS.items()
        if not names or any(part in name for part in names)
    ]


def peer_contestants(model: str, data: str, python: str, exported: str) -> list[Contestant]:
    module = "benchmarks.contestants.sentence_transformers_predict"

    def predict(name: str, folder: str, batch: int, *how: str) -> Contestant:
        command = [python, "-m", module, folder, data, "cpu", PAIRS_PER_CALL, str(batch), *how]
        return Contestant(f"sentence-transformers {name}, batch {batch}", command)

    peers = [predict("torch fp32", model, batch, "torch", "float32") for batch in (8, 32)]
    if has_bf16():
        peers.append(predict("torch bf16", model, 8, "torch", "bfloat16"))
    int8 = Path(exported) / "openvino" / "openvino_model_qint8_quantized.xml"
    if int8.exists():
        peers += [
            predict("openvino int8", exported, batch, "openvino", "int8", int8.name)
            for batch in (8, 32)
        ]
        peers.append(predict("openvino default", exported, 8, "openvino", "default"))
    onnx = sorted((Path(exported) / "onnx").glob("model_q*.onnx"))
    if onnx:
        peers.append(predict("onnx int8", exported, 8, "onnx", "int8", onnx[0].name))
    return peers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="the folder of a cross-encoder")
    parser.add_argument("--data", required=True, help="a folder with data in TREC format")
    parser.add_argument("--peers-python", default=sys.executable, help="the peers' interpreter")
    parser.add_argument("--exported", default="", help="the folder that export_peers.py wrote")
    parser.add_argument("--infinity-python", default="", help="the interpreter with Infinity")
    parser.add_argument(
        "--ours",
        nargs="*",
        default=[],
        help="measure only crossbench entries with these substrings",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()

    model, data = (str(Path(path).resolve()) for path in (given.model, given.data))
    ours = our_contestants(model, data, given.ours)
    exported = str(Path(given.exported).resolve()) if given.exported else ""
    peers = peer_contestants(model, data, given.peers_python, exported)
    if given.infinity_python:
        module = "benchmarks.contestants.infinity_rerank"
        command = [given.infinity_python, "-m", module, model, data, "7997"]
        peers.append(Contestant("Infinity torch fp32", command))
    folder = outputs_dir()
    race = Race([*ours, *peers], folder / "peers.log")
    taken = race.run(given.rounds, given.seconds)
    race.close()

    rows = []
    for one in (entry.name for entry in ours if entry.name in taken):
        for peer in (entry.name for entry in peers if entry.name in taken):
            middle, least, largest = ratios(taken, one, peer)
            rows.append((one, peer, f"{middle:.2f} x", f"{least:.2f} to {largest:.2f}"))
    text = "\n\n".join(
        [
            f"{machine()}; {given.rounds} rounds of {given.seconds:g} s, interleaved",
            speed_table(taken),
            markdown_table(("ours", "peer", "ratio (median)", "rounds"), rows, "llrr"),
            *(f"{name}: {reason}" for name, reason in race.missing.items()),
        ]
    )
    print(text)
    (folder / "peers.md").write_text(text + "\n", "utf-8")
    (folder / "peers.json").write_text(json.dumps(taken, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
