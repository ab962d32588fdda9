"""Compare the speed of all engines on real text with each other and with the machine's limit.

    python benchmarks/engines.py --model DIR --data DIR [--rounds 5] [--pairs 64] [--threads 2]
        [--only packed,openvino] [--json FILE]

All engines get the same pairs. They take turns within a round, so that other load on the machine
affects all of them, and ratios are computed within rounds. `--data` is a folder with `queries.tsv`,
`collection.tsv` and a run file in TREC format (`run.bm25.txt`). Engines get token ids; only
sentence-transformers, if it is installed, includes tokenisation. benchmarks/peers.py compares
servers and engines that need their own environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crossbench.backends.base import Deployment
from crossbench.errors import CrossbenchError
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.settings.places import conf_dir
from crossbench.settings.schema import register
from crossbench.types import Quant, TokenBatch

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = "transformers fp32, sorted, 8 a batch"
STATIC_INT8 = {"int8": {"token_scales": []}}
ENGINES: dict[str, tuple[str, str, dict[str, object]]] = {
    "packed fp32": ("packed", "fp32", {}),
    "packed fp32, whole last layer": ("packed", "fp32", {"cls_only": False}),
    "packed fp32, onednn": ("packed", "fp32", {"linear": "onednn"}),
    "packed bf16": ("packed", "bf16", {}),
    "compiled fp32": ("compiled", "fp32", {}),
    "compiled fp32, onednn": ("compiled", "fp32", {"linear": "onednn"}),
    "compiled bf16": ("compiled", "bf16", {}),
    "openvino fp32": ("openvino", "fp32", {}),
    "openvino bf16": ("openvino", "bf16", {}),
    "openvino int8": ("openvino", "int8", {}),
    "openvino int8, products too": ("openvino", "int8", {"int8_products": "int8"}),
    "openvino int8, static scales": ("openvino", "int8", {"int8_products": "int8", **STATIC_INT8}),
    "onnx fp32": ("onnx", "fp32", {}),
    "onnx int8": ("onnx", "int8", {}),
    "onnx int8, static scales": ("onnx", "int8", STATIC_INT8),
}
PEER = "sentence-transformers torch fp32, 8 a batch"


@dataclass(frozen=True)
class Arguments:
    model: Path
    data: Path
    rounds: int
    pairs: int
    threads: int
    only: tuple[str, ...]
    json: Path | None


def main() -> None:
    arguments = parse()
    pairs = read_pairs(arguments.data, arguments.pairs)
    model = read_folder(arguments.model.resolve(), arguments.model.name, 512)
    batch = tokenize(model, pairs)
    print(f"{len(pairs)} pairs of {batch.lengths.mean():.1f} tokens, {arguments.threads} threads")
    register()
    with (
        tempfile.TemporaryDirectory() as cache,
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
    ):
        runs = prepare(arguments, model, pairs, batch, Path(cache))
        seconds = take_turns(runs, arguments.rounds)
    rows = table(seconds, len(pairs))
    print_table(rows)
    limits = roofline(arguments.threads)
    print("\nlimit: best matrix products of 512 rows and the model's shapes, GFLOP/s or GOP/s")
    for name, limit in limits.items():
        print(f"  {name:<28}{limit:8.0f}")
    work = float((batch.lengths * (21.2e-3 + 9.2e-6 * batch.lengths)).sum())
    for name, row in rows.items():
        print(
            f"  {name:<42}{row['pairs_per_s'] / len(pairs) * work:8.0f} GFLOP/s of the whole model"
        )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"engines": rows, "limits": limits}, indent=1), "utf-8"
        )


def parse() -> Arguments:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    given = vars(parser.parse_args())
    given["only"] = tuple(part for part in given["only"].split(",") if part)
    return Arguments(**given)


def read_pairs(data: Path, count: int) -> list[tuple[str, str]]:
    """Return `count` random pairs of the run in random order."""
    tables = [
        dict(line.split("\t", 1) for line in (data / name).read_text("utf-8").splitlines())
        for name in ("queries.tsv", "collection.tsv")
    ]
    rows = [line.split() for line in (data / "run.bm25.txt").read_text("utf-8").splitlines()]
    pairs = [(tables[0][row[0]], tables[1][row[2]]) for row in rows if row[2] in tables[1]]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [pairs[index] for index in chosen]


def tokenize(model: ModelFolder, pairs: list[tuple[str, str]]) -> TokenBatch:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_length)
    encoded = tokenizer.encode_batch(pairs)
    return TokenBatch.from_lengths(
        np.concatenate([np.asarray(item.ids, dtype=np.int32) for item in encoded]),
        np.concatenate([np.asarray(item.type_ids, dtype=np.int32) for item in encoded]),
        [len(item.ids) for item in encoded],
    )


Run = Callable[[], object]


def prepare(
    arguments: Arguments,
    model: ModelFolder,
    pairs: list[tuple[str, str]],
    batch: TokenBatch,
    cache: Path,
) -> dict[str, Run]:
    """Load everything to be timed, by name; print why an engine cannot run on this machine."""

    def wanted(name: str) -> bool:
        return not arguments.only or any(part in name for part in arguments.only)

    forward = transformers_forward(model)
    order = np.argsort(batch.lengths, kind="stable")
    runs: dict[str, Run] = {
        REFERENCE: lambda: forward(batch.select(order), 8, arguments.threads),
        "transformers fp32, arrival order, 32 a batch": lambda: forward(
            batch, 32, arguments.threads
        ),
    }
    for name, (kind, quant, options) in ENGINES.items():
        if wanted(name):
            config = OmegaConf.merge(
                compose("config", overrides=[f"backend={kind}"]).backend, options
            )
            deployment = Deployment(model, Quant(quant), "cpu", arguments.threads, cache)
            try:
                engine = instantiate(config, _partial_=True)(deployment=deployment)
                engine.load_model()
            except CrossbenchError as error:
                print(f"skipped {name}: {error}")
                continue
            runs[name] = lambda engine=engine: engine.infer(batch)
    with suppress(ImportError):
        runs[PEER] = sentence_transformers_predict(model, pairs, arguments.threads)
    return runs


def sentence_transformers_predict(
    model: ModelFolder, pairs: list[tuple[str, str]], threads: int
) -> Run:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(model.path), device="cpu")

    def predict() -> object:
        with torch_threads(threads):
            return encoder.predict(pairs, batch_size=8, show_progress_bar=False)

    return predict


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set the number of torch threads, which engines change for the whole process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(before)


def transformers_forward(model: ModelFolder) -> Callable[[TokenBatch, int, int], object]:
    import torch
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(model.path).eval()

    def forward(batch: TokenBatch, size: int, threads: int) -> list[float]:
        scores: list[float] = []
        with torch_threads(threads), torch.inference_mode():
            for start in range(0, len(batch), size):
                part = batch.select(np.arange(start, min(start + size, len(batch))))
                padded = part.padded(model.pad_id)
                logits = classifier(
                    input_ids=torch.from_numpy(padded.input_ids),
                    token_type_ids=torch.from_numpy(padded.type_ids),
                    attention_mask=torch.from_numpy(padded.attention_mask),
                ).logits
                scores += logits[:, 0].tolist()
        return scores

    return forward


def take_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each run in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[str, list[float]], pairs: int) -> dict[str, dict[str, float]]:
    """Return the median pairs per second and the ratios to the reference within each round."""
    rows = {}
    for name, taken in seconds.items():
        ratios = [ref / own for ref, own in zip(seconds[REFERENCE], taken, strict=True)]
        rows[name] = {
            "pairs_per_s": pairs / statistics.median(taken),
            "ratio": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
        }
    return rows


def print_table(rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{'':<46}{'pairs/s':>9}{'ratio':>8}   (least-most)")
    for name, row in rows.items():
        print(
            f"{name:<46}{row['pairs_per_s']:9.1f}{row['ratio']:8.2f}"
            f"   ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"
        )


def roofline(threads: int) -> dict[str, float]:
    """Return each library's best speed of matrix products with the model's shapes."""
    import torch

    torch.set_num_threads(threads)
    limits = {"fp32 MKL": 0.0, "fp32 oneDNN": 0.0, "int8 ONNX Runtime": 0.0, "int8 OpenVINO": 0.0}
    for inner, outer in ((384, 1152), (384, 1536), (1536, 384)):
        x = torch.randn(512 * threads, inner)
        work = 2e-9 * x.shape[0] * inner * outer
        candidates = torch_products(x, outer)
        for name, make in (("int8 ONNX Runtime", onnx_int8), ("int8 OpenVINO", openvino_int8)):
            with suppress(ImportError):
                candidates[name] = make(x.numpy(), outer, threads)
        for name, run in candidates.items():
            limits[name] = max(limits[name], work / fastest(run))
    return limits


def torch_products(x: Tensor, outer: int) -> dict[str, Run]:
    import torch

    weight, bias = torch.randn(outer, x.shape[1]), torch.zeros(outer)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    onednn = torch.ops.mkldnn._linear_pointwise
    return {
        "fp32 MKL": lambda: torch.nn.functional.linear(x, weight, bias),
        "fp32 oneDNN": lambda: onednn(x, packed, bias, "none", [], ""),
    }


def fastest(run: Run) -> float:
    """Return the seconds of the fastest of 20 calls, as the limit of an undisturbed machine."""
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def onnx_int8(x: np.ndarray, outer: int, threads: int) -> Run:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    inner = x.shape[1]
    weight = np.random.default_rng(0).integers(-63, 64, (inner, outer)).astype(np.int8)
    levels = np.clip(x * 30 + 128, 0, 255).astype(np.uint8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w", "z"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [None, outer])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.uint8(128), "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": levels})


def openvino_int8(x: np.ndarray, outer: int, threads: int) -> Run:
    import openvino as ov
    from openvino import opset13 as op

    weight = np.random.default_rng(0).integers(-63, 64, (outer, x.shape[1])).astype(np.int8)
    parameter = op.parameter(list(x.shape), np.float32)
    ends = [op.constant(np.float32(end)) for end in (-4.0, 4.0, -4.0, 4.0)]
    quantised = op.fake_quantize(parameter, *ends, 255)
    scaled = op.multiply(op.convert(op.constant(weight), np.float32), op.constant(np.float32(0.01)))
    model = ov.Model([op.result(op.matmul(quantised, scaled, False, True))], [parameter], "product")
    compiled = ov.Core().compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    )
    request = compiled.create_infer_request()
    return lambda: request.infer([x], share_inputs=True)


if __name__ == "__main__":
    main()
