"""backend=openvino: the encoder as an OpenVINO graph, with groups on parallel streams."""

from __future__ import annotations

import math
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from crossbench.backends import artifacts, cpu_features
from crossbench.backends.availability import Missing, Supported, require
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.backends.calibration import Int8Options, calibrated_plan, quantised_names
from crossbench.backends.graphs import GraphEngine, check_graph_pools
from crossbench.backends.streams import Grouping, Run, Streams
from crossbench.errors import BackendUnavailable, ConfigError
from crossbench.models.quantize import weight_plan
from crossbench.models.weights import read_weights
from crossbench.types import Inference, Quant, TokenBatch

_MASKED = np.float32(-1e9)  # added to attention scores of padding; -inf would give NaN (0 * inf)
PRODUCTS = ("int8", "rest", "auto")
_GRAPH_VERSION = 4  # increase it when the output of openvino_graph.py or quantize.py changes
_conversion_lock = threading.Lock()


@dataclass
class OpenVINOBackend(GraphEngine):
    """OpenVINO on a CPU, at fp32, bf16 or int8.

    `streams` single-threaded streams compute the groups of a micro-batch in parallel (0: as many as
    the deployment has threads). With `wide`, a second compiled model with all threads computes a
    micro-batch that forms a single group. `cls_only` computes the last layer for the CLS row only,
    with the same result. `grouping` limits the groups. `int8` has the quantisation options.
    `int8_rest` is the precision of everything that is not int8: f32, bf16 or auto (bf16 if the CPU
    has it). `int8_products` is int8 (linear layers multiply in int8), rest (only their weights are
    int8) or auto (rest if the CPU has no int8 dot products, because OpenVINO's int8 products are
    then slower and less accurate than fp32).
    """

    supported: ClassVar[Supported] = dict.fromkeys((Quant.FP32, Quant.BF16, Quant.INT8), ("cpu",))
    layout: ClassVar[Layout] = "packed"  # it groups by length itself, so padding is small
    traits: ClassVar[Traits] = Traits()

    name: str
    deployment: Deployment
    cls_only: bool
    streams: int
    wide: bool
    grouping: Grouping
    int8: Int8Options
    int8_products: str
    int8_rest: str
    precisions: frozenset[str] = field(default=frozenset(), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.int8_products not in PRODUCTS:
            raise ConfigError(
                f"backend.int8_products={self.int8_products} is unknown: give {', '.join(PRODUCTS)}"
            )

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        try:
            import openvino as ov
        except ImportError as error:
            return Missing(
                f"OpenVINO is not installed ({error})", "pip install 'crossbench[openvino]'"
            )
        if quant is Quant.BF16 and not has_bf16(ov.Core()):
            return cpu_features.missing_bf16() or Missing(
                f"OpenVINO {ov.__version__} has no bf16 kernels for this CPU", "give quant=fp32"
            )
        return None

    @property
    def encoder(self) -> str:
        return "openvino, weights alone int8" if self._weights_only else "openvino"

    @property
    def device(self) -> str:
        return "cpu"

    def load_model(self) -> None:
        deployment = self.deployment
        require(self.name, type(self), deployment.quant, deployment.device)
        check_graph_pools(self.name, deployment.model)
        import openvino as ov

        convert_first_type()
        core = ov.Core()
        rest = "bf16" if has_bf16(core) and self.int8_rest == "auto" else self.int8_rest
        hint = {Quant.FP32: "f32", Quant.BF16: "bf16"}.get(
            deployment.quant, "f32" if rest == "auto" else rest
        )
        graph = core.read_model(self.artifact().fetch() / "encoder.xml")
        count = self.streams or deployment.threads

        def engine(streams: int, threads: int) -> Any:
            # Pinning would bind several servers, and the client, to the same cores
            return core.compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hint,
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": threads,
                    "ENABLE_CPU_PINNING": False,
                },
            )

        narrow = engine(count, max(count, deployment.threads))
        constants = constant_bytes(narrow)
        self._model_mb = sum(constants.values()) / 1e6
        self.precisions = executed_precisions(narrow)
        if self._weights_only:
            self.precisions |= {f"weights_{kind}" for kind in constants}
        self._check_precisions()
        run = _runner(narrow, deployment.model.pad_id)
        wide = self.wide and deployment.threads > 1
        run_wide = _runner(engine(1, deployment.threads), deployment.model.pad_id) if wide else run
        self._running = Streams(count, self.grouping, run, run_wide)

    def artifact(self) -> artifacts.Artifact:
        """Return the OpenVINO graph of this model in this precision."""
        quant, model = self.deployment.quant, self.deployment.model
        key = artifacts.artifact_key(
            _GRAPH_VERSION,
            model.digest,
            quant is Quant.INT8 and (self.int8.key(), model.max_length, self._weights_only),
            self.cls_only,
            artifacts.library_versions("openvino"),
        )

        def build(folder: Path) -> None:
            from openvino import save_model

            from crossbench.backends.openvino_graph import Int8, build

            weights = read_weights(model)
            plan: Int8 = {}
            if self._weights_only:
                plan = weight_plan(weights, quantised_names(weights, self.int8))
            elif quant is Quant.INT8:
                plan = calibrated_plan(model, weights, self.int8)
            graph = build(weights, self.cls_only, plan)
            save_model(graph, folder / "encoder.xml", compress_to_fp16=False)

        return artifacts.Artifact(self.deployment.cache_dir / "openvino" / key, build)

    @property
    def _weights_only(self) -> bool:
        rest = self.int8_products == "rest"
        if self.int8_products == "auto":
            rest = not cpu_features.has_int8_dot()
        return self.deployment.quant is Quant.INT8 and rest

    def _check_precisions(self) -> None:
        """Refuse a model that OpenVINO silently compiled to another precision."""
        wanted = {Quant.FP32: "f32", Quant.BF16: "bf16", Quant.INT8: "i8"}[self.deployment.quant]
        if not any(wanted in found.lower() for found in self.precisions):
            raise BackendUnavailable(
                f"backend={self.name} quant={self.deployment.quant.value}: OpenVINO has compiled "
                f"the model's linear layers to {', '.join(sorted(self.precisions))} on this CPU, "
                f"and none of these kernels uses {wanted}: give quant=fp32"
            )


def convert_first_type() -> None:
    """Convert one OpenVINO type to a NumPy type, before several threads do so at once.

    Otherwise the first infer() makes the first conversion. If two threads do so at the same time,
    they can deadlock: one holds an OpenVINO lock and waits for the GIL, and the other holds the GIL
    and waits for that lock.
    """
    import openvino as ov

    with _conversion_lock:
        ov.Type.f32.to_dtype()


def has_bf16(core: Any) -> bool:
    """Whether OpenVINO has bf16 kernels for this CPU."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def executed_precisions(compiled: Any) -> frozenset[str]:
    """Return the kernels of a compiled model's matrix products, such as `brgemm_avx2_f32`."""
    operations = compiled.get_runtime_model().get_ordered_ops()
    infos = [operation.get_rt_info() for operation in operations]
    return frozenset(
        info["primitiveType"].astype(str)
        for info in infos
        if info["layerType"].astype(str) in ("FullyConnected", "MatMul")
    )


def constant_bytes(compiled: Any) -> dict[str, int]:
    """Return the bytes of a compiled model's constants by data type (f32, i8, …)."""
    total: dict[str, int] = {}
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        kind = info["outputPrecisions"].astype(str)
        bits = re.search(r"\d+$", kind)
        shape = operation.output(0).partial_shape
        if info["layerType"].astype(str) == "Const" and bits and shape.is_static:
            size = math.prod(shape.to_shape()) * int(bits[0]) // 8
            total[kind] = total.get(kind, 0) + size
    return total


def _runner(compiled: Any, pad_id: int) -> Run:
    """Return a function that pads a group and runs it; each thread has its own infer request."""
    local = threading.local()

    def run(batch: TokenBatch) -> Inference:
        request = getattr(local, "request", None)
        if request is None:
            request = local.request = compiled.create_infer_request()
        padded = batch.padded(pad_id)
        mask = np.where(padded.attention_mask == 1, np.float32(0), _MASKED)
        inputs = [padded.input_ids.astype(np.int32), padded.type_ids.astype(np.int32), mask]
        request.infer(inputs, share_inputs=True)
        scores = np.array(request.get_output_tensor(0).data, dtype=np.float32)
        return Inference(scores, padded.input_ids.size)

    return run
