"""backend=onnx: the encoder as an ONNX graph in ONNX Runtime, with groups on parallel streams."""

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
_GRAPH_VERSION = 3  # increase it when the output of onnx_graph.py or quantize.py changes


@dataclass
class OnnxBackend(GraphEngine):
    """ONNX Runtime on a CPU at fp32 or int8, or on an NVIDIA GPU at fp32.

    `streams` threads compute the groups of a micro-batch in parallel (0: as many as the deployment
    has threads). With `wide`, a second session with all threads computes a micro-batch that forms a
    single group. `cls_only` computes the last layer for the CLS row only, with the same result.
    `grouping` limits the groups on a CPU, `cuda_grouping` on a GPU. `int8` has the quantisation
    options.
    """

    supported: ClassVar[Supported] = {Quant.FP32: ("cuda", "cpu"), Quant.INT8: ("cpu",)}
    layout: ClassVar[Layout] = "packed"  # it groups by length itself, so padding is small
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
                "the installed ONNX Runtime has no CUDA provider",
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
        # The files contain almost only weights, in the types that the sessions use
        self._model_mb = sum(part.stat().st_size for part in file.parent.glob("*.onnx*")) / 1e6

        def runner(threads: int) -> Run:
            options = runtime.SessionOptions()
            options.intra_op_num_threads = threads
            # Spinning threads would take CPU time from the tokenizer, the server and the client
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = runtime.InferenceSession(file, options, providers=[provider])
            if on_gpu and session.get_providers()[0] != _CUDA:  # it fell back to the CPU
                raise BackendUnavailable(
                    f"backend={self.name} device={self._device}: ONNX Runtime cannot load its CUDA "
                    "provider: install the CUDA and cuDNN versions that it was built for, or give "
                    "device=cpu"
                )
            return _runner(session, deployment.model.pad_id)

        run = runner(1)
        if on_gpu:  # one stream with large groups keeps a GPU busy
            self._running = Streams(1, self.cuda_grouping, run, run)
            return
        wide = self.wide and deployment.threads > 1
        run_wide = runner(deployment.threads) if wide else run
        self._running = Streams(self.streams or deployment.threads, self.grouping, run, run_wide)

    def artifact(self) -> artifacts.Artifact:
        """Return the ONNX graph of this model in this precision."""
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
            # A single ONNX file is limited to 2 GB, so the weights go to a second file
            import onnx

            onnx.save_model(
                proto,
                folder / "encoder.onnx",
                save_as_external_data=True,
                location="encoder.onnx.data",
            )

        return artifacts.Artifact(self.deployment.cache_dir / "onnx" / key, build)


def _runner(session: Any, pad_id: int) -> Run:
    """Return a function that pads a group and runs it; a session is safe to share by threads."""

    def run(batch: TokenBatch) -> Inference:
        padded = batch.padded(pad_id)
        inputs = {
            "input_ids": padded.input_ids.astype(np.int32),
            "type_ids": padded.type_ids.astype(np.int32),
            "mask": padded.attention_mask.astype(np.int32),
        }
        return Inference(session.run(None, inputs)[0], padded.input_ids.size)

    return run
