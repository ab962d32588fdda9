"""backend=pytorch: transformers' own padded forward pass, the baseline and the reference."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crossbench.backends import cpu_features
from crossbench.backends.availability import Missing, Supported, require
from crossbench.backends.base import Deployment, Layout, Traits
from crossbench.backends.devices import device_memory, missing_device, stored_bytes, torch_dtype
from crossbench.errors import ModelError
from crossbench.models.families import known_family
from crossbench.types import DeviceMemory, Inference, PaddedBatch, Quant, TokenBatch
from crossbench.wording import error_text

if TYPE_CHECKING:
    import torch


@dataclass
class PyTorchBackend:
    """Runs one padded forward pass per micro-batch, in arrival order.

    int8 uses dynamic quantisation: see models/dynamic_int8.py.
    """

    supported: ClassVar[Supported] = {
        Quant.FP32: ("cuda", "mps", "cpu"),
        Quant.FP16: ("cuda", "mps", "cpu"),
        Quant.BF16: ("cuda", "mps", "cpu"),
        Quant.INT8: ("cpu",),
    }
    layout: ClassVar[Layout] = "padded"
    traits: ClassVar[Traits] = Traits(is_reference=True)

    name: str
    deployment: Deployment
    _model: Any = field(default=None, init=False, repr=False)
    _uses_type_ids: bool = field(default=False, init=False, repr=False)
    _model_bytes: int | None = field(default=None, init=False, repr=False)
    _device: torch.device | None = field(default=None, init=False, repr=False)

    @classmethod
    def missing(cls, quant: Quant, device: str) -> Missing | None:
        return missing_device(device)

    @property
    def encoder(self) -> str:
        return "transformers"

    @property
    def workers(self) -> int:
        return 1

    @property
    def device(self) -> str:
        return str(self._device)

    def load_model(self) -> None:
        import torch

        deployment = self.deployment
        device = require(self.name, type(self), deployment.quant, deployment.device)
        self._device = torch.device(device)
        torch.set_num_threads(deployment.threads)
        self._model = load_library_model(deployment).to(self._device)
        if deployment.quant is Quant.INT8:
            from crossbench.models.dynamic_int8 import quantize_linears

            # Quantisation turns NaN into ordinary numbers, so later checks would not find it
            broken = [
                name for name, values in self._model.named_parameters() if not _finite(values)
            ]
            if broken:
                raise ModelError(
                    f"{deployment.model.path} has NaN or infinite values in "
                    f"{', '.join(broken[:4])}: restore the weights"
                )
            quantize_linears(self._model, reduce_range=not cpu_features.has_int8_dot())
        self._model_bytes = stored_bytes(self._model)
        takes_types = "token_type_ids" in inspect.signature(self._model.forward).parameters
        self._uses_type_ids = takes_types and deployment.model.facts.tokenizer.uses_type_ids
        if known_family(deployment.model.config) is None and deployment.quant is Quant.FP32:
            self._check_padding_is_masked()

    def warmup(self, lengths: Sequence[int]) -> None:
        self.infer(sample_batch(lengths))

    def infer(self, batch: TokenBatch) -> Inference:
        padded = batch.padded(self.deployment.model.pad_id, self._pad_to(batch))
        return Inference(self._forward(padded), padded.input_ids.size)

    def memory(self) -> DeviceMemory:
        if self._device is None:
            return DeviceMemory()
        return device_memory(self._device, self._model_bytes)

    def close(self) -> None:
        self._model = self._model_bytes = None

    def _pad_to(self, batch: TokenBatch) -> int | None:
        """Return the length to pad every sequence to; None for the longest one's length."""
        return None

    def _inputs(self, padded: PaddedBatch) -> dict[str, np.ndarray]:
        """Return the arguments of the forward pass."""
        inputs = {"input_ids": padded.input_ids, "attention_mask": padded.attention_mask}
        if self._uses_type_ids:
            inputs["token_type_ids"] = padded.type_ids
        return inputs

    def _check_padding_is_masked(self) -> None:
        """Refuse a model that reads padding in spite of the mask, as convolutions do.

        Raises:
            ModelError: a text's value changes when a longer text is in the same batch.
        """
        model = self.deployment.model
        size = 2 if model.embedding is None else 1
        probes = [item for item in model.facts.tokenizer.probes if len(item.texts) == size]
        rows = sorted((item.ids[: model.max_length] for item in probes), key=len)
        ids = [np.array(rows[index], dtype=np.int32) for index in (0, -1)]
        zeros = [np.zeros(len(row), dtype=np.int32) for row in ids]
        lengths = [len(row) for row in ids]
        alone = TokenBatch.from_lengths(ids[0], zeros[0], lengths[:1])
        both = TokenBatch.from_lengths(np.concatenate(ids), np.concatenate(zeros), lengths)
        first, second = (self._forward(item.padded(model.pad_id))[0] for item in (alone, both))
        if not np.allclose(first, second, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ModelError(
                f"{model.path}: the result for a text changes when a longer text is in the same "
                f"batch, because transformers' {model.architecture} computes over padding. Its "
                "scores are not reliable: choose another model"
            )

    def _forward(self, padded: PaddedBatch) -> np.ndarray:
        """Return logits (n,) or vectors (n, dim), float32; copying to the host synchronises."""
        import torch

        from crossbench.models.pooling import pool_states

        embedding = self.deployment.model.embedding

        with torch.inference_mode():
            inputs = {
                name: torch.from_numpy(array).to(self._device)
                for name, array in self._inputs(padded).items()
            }
            output = self._model(**inputs, return_dict=True)
            if embedding is None:
                values = output.logits[:, 0].float()
            else:
                real = inputs["attention_mask"].bool()
                values = pool_states(output.last_hidden_state[real], real.sum(1), embedding)
            on_host: np.ndarray = values.cpu().numpy()
        return on_host


def _finite(values: torch.Tensor) -> bool:
    return bool(values.isfinite().all())


def load_library_model(deployment: Deployment) -> torch.nn.Module:
    """Load transformers' sequence classifier or bare encoder, on the CPU.

    Its precision is the deployment's; for int8 it is fp32.

    Raises:
        ModelError: the folder is invalid, or its model does not give one score per pair.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    folder = deployment.model
    try:
        kind: Any = AutoModel
        changes: dict[str, Any] = {}
        if folder.embedding is None:
            # One label, even if only the shape of the head says so
            kind, changes = AutoModelForSequenceClassification, {"num_labels": 1}
        if folder.config.get("pad_token_id") is None:
            changes["pad_token_id"] = folder.pad_id
        model, report = kind.from_pretrained(
            folder.path,
            **changes,
            dtype=torch_dtype(deployment.quant),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise many exception types
        raise ModelError(
            f"transformers cannot load {folder.path} ({error_text(error)}): "
            "check that its files are complete and belong together"
        ) from error
    # transformers initialises missing tensors at random; an embedder's pooler is not used
    unused = "pooler." if folder.embedding is not None else ()
    missing = [name for name in report["missing_keys"] if not name.startswith(unused)]
    if missing:
        raise ModelError(
            f"{folder.path} lacks the tensors {', '.join(sorted(missing)[:4])}: it is neither a "
            "complete cross-encoder nor a sentence-transformer (which needs a modules.json that "
            "lists a pooling module)"
        )
    module: torch.nn.Module = model.eval()
    return module


def sample_batch(lengths: Sequence[int]) -> TokenBatch:
    """Return sequences of these token lengths for the warm-up; their content is arbitrary."""
    total = sum(lengths)
    ids = np.full(total, 5, dtype=np.int32)
    return TokenBatch.from_lengths(ids, np.zeros(total, dtype=np.int32), lengths)
