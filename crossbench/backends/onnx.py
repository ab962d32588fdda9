"""backend=onnx: the encoder as an ONNX graph on ONNX Runtime, groups on parallel streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from crossbench.backends import artifacts
from crossbench.backends.availability import Missing, Supported, require
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.backends.calibration import Int8Options, calibrated_plan
from crossbench.backends.graphs import GraphEngine, check_graph_pools
from crossbench.backends.streams import Grouping, Run, Streams
from crossbench.errors import BackendUnavailable
from crossbench.models.weights import read_weights
from crossbench.types import Inference, Quant, TokenBatch

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_GRAPH_VERSION = 3  # raise it when onnx_graph.py or quantize.py change what they make


@dataclass
class OnnxBackend(GraphEngine):
    """ONNX Runtime on the CPU, at fp32 or int8, or on an NVIDIA GPU at fp32.

    `streams` sessions of one thread each share a micro-batch's groups (0: as many as the
    deployment has threads); `wide` keeps a second session with all threads for a lone group.
    `cls_only` computes the last layer for the CLS row, which is exact. `grouping` bounds the
    groups on a CPU, `cuda_grouping` on a GPU; `int8` says how int8 is made.
    """

    supported: ClassVar[Supported] = {Quant.FP32: ("cuda", "cpu"), Quant.INT8: ("cpu",)}
    layout: ClassVar[Layout] = "packed"  # groups are sorted inside, so cost goes by tokens
    traits: ClassVar[Traits] = Traits()

    name: str
    deployment: Deployment
    cls_only: bool
    streams: int
    wide: bool
    grouping: Grouping
    cuda_grouping: Grouping
    int8: Int8Options
    _device: str = field(default="", init=False, repr=False)

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        try:
            import onnx  # noqa: F401
            import onnxruntime
        except ImportError as error:
            return Missing(
                f"ONNX Runtime or onnx is not installed ({error})", "pip install 'crossbench[onnx]'"
            )
        if device.startswith("cuda") and _CUDA not in onnxruntime.get_available_providers():
            return Missing(
                "ONNX Runtime has no CUDA provider here",
                "on a machine with an NVIDIA GPU, pip uninstall onnxruntime and "
                "pip install onnxruntime-gpu",
            )
        return None

    @property
    def encoder(self) -> str:
        return "onnx"

    @property
    def device(self) -> str:
        return self._device

    def load_model(self) -> None:
        deployment = self.deployment
        self._device = require(self.name, type(self), deployment.quant, deployment.device)
        check_graph_pools(self.name, deployment.model)
        on_gpu = self._device != "cpu"
        provider = (_CUDA, {"device_id": self._device.partition(":")[2]}) if on_gpu else _CPU
        import onnxruntime as runtime

        file = self.artifact().fetch() / "encoder.onnx"
        # Next to nothing but weights, in the types that the sessions hold them in
        self._model_mb = sum(part.stat().st_size for part in file.parent.glob("*.onnx*")) / 1e6

        def runner(threads: int) -> Run:
            options = runtime.SessionOptions()
            options.intra_op_num_threads = threads
            # Spinning threads would take the cores from the tokenizer, the server and the client.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = runtime.InferenceSession(file, options, providers=[provider])
            if on_gpu and session.get_providers()[0] != _CUDA:  # it would go on with the CPU
                raise BackendUnavailable(
                    f"backend={self.name} device={self._device}: ONNX Runtime cannot load its CUDA "
                    "provider: install the CUDA and cuDNN that it was built for, or give device=cpu"
                )
            return _runner(session, deployment.model.pad_id)

        run = runner(1)
        if on_gpu:  # one stream fills it, with groups as large as may be
            self._running = Streams(1, self.cuda_grouping, run, run)
            return
        wide = self.wide and deployment.threads > 1
        run_wide = runner(deployment.threads) if wide else run
        self._running = Streams(self.streams or deployment.threads, self.grouping, run, run_wide)

    def artifact(self) -> artifacts.Artifact:
        """The graph that the engine loads, of this model at this precision."""
        quant, model = self.deployment.quant, self.deployment.model
        key = artifacts.artifact_key(
            _GRAPH_VERSION,
            model.digest,
            quant is Quant.INT8 and (self.int8.key(), model.max_length),
            self.cls_only,
        )

        def build(folder: Path) -> None:
            from crossbench.backends.onnx_graph import build

            weights = read_weights(model)
            plan = calibrated_plan(model, weights, self.int8) if quant is Quant.INT8 else {}
            proto = build(weights, self.cls_only, plan)
            # One file holds at most 2 GB; what is larger goes beside it.
            import onnx

            onnx.save_model(
                proto,
                folder / "encoder.onnx",
                save_as_external_data=True,
                location="encoder.onnx.data",
            )

        return artifacts.Artifact(self.deployment.cache_dir / "onnx" / key, build)


def _runner(session: Any, pad_id: int) -> Run:
    """Runs padded groups; a session may be called from several threads at once."""

    def run(batch: TokenBatch) -> Inference:
        padded = batch.padded(pad_id)
        inputs = {
            "input_ids": padded.input_ids.astype(np.int32),
            "type_ids": padded.type_ids.astype(np.int32),
            "mask": padded.attention_mask.astype(np.int32),
        }
        return Inference(session.run(None, inputs)[0], padded.input_ids.size)

    return run
