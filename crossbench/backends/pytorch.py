"""backend=pytorch: transformers' own padded forward. The plain baseline, and drift's reference."""

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

if TYPE_CHECKING:
    import torch


@dataclass
class PyTorchBackend:
    """One padded forward per micro-batch, in the order in which it came.

    int8 is dynamic: see models/dynamic_int8.py.
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
        place = require(self.name, type(self), deployment.quant, deployment.device)
        self._device = torch.device(place)
        torch.set_num_threads(deployment.threads)
        self._model = load_library_model(deployment).to(self._device)
        if deployment.quant is Quant.INT8:
            from crossbench.models.dynamic_int8 import quantize_linears

            # int8 makes ordinary numbers of NaN, so that no later check would see it
            wrong = [name for name, tensor in self._model.named_parameters() if not _finite(tensor)]
            if wrong:
                raise ModelError(
                    f"{deployment.model.path} holds NaN or infinite numbers in "
                    f"{', '.join(wrong[:4])}: restore the weights"
                )
            quantize_linears(self._model, reduce_range=not cpu_features.has_int8_dot())
        self._model_bytes = stored_bytes(self._model)
        takes_types = "token_type_ids" in inspect.signature(self._model.forward).parameters
        self._uses_type_ids = takes_types and deployment.model.facts.tokenizer.uses_type_ids
        if known_family(deployment.model.config) is None and deployment.quant is Quant.FP32:
            self._check_company()

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
        """Tokens to pad every sequence to; None for no more than the longest."""
        return None

    def _inputs(self, padded: PaddedBatch) -> dict[str, np.ndarray]:
        """The forward's arguments."""
        inputs = {"input_ids": padded.input_ids, "attention_mask": padded.attention_mask}
        if self._uses_type_ids:
            inputs["token_type_ids"] = padded.type_ids
        return inputs

    def _check_company(self) -> None:
        """Refuse a model that computes over padding in spite of the mask, as convolutions do.

        Raises:
            ModelError: a text alone has another value than beside a longer one.
        """
        model = self.deployment.model
        size = 2 if model.embedding is None else 1
        probes = [item for item in model.facts.tokenizer.probes if len(item.texts) == size]
        rows = sorted((item.ids[: model.max_length] for item in probes), key=len)
        ids = [np.array(rows[place], dtype=np.int32) for place in (0, -1)]
        zeros = [np.zeros(len(row), dtype=np.int32) for row in ids]
        lengths = [len(row) for row in ids]
        alone = TokenBatch.from_lengths(ids[0], zeros[0], lengths[:1])
        both = TokenBatch.from_lengths(np.concatenate(ids), np.concatenate(zeros), lengths)
        first, second = (self._forward(item.padded(model.pad_id))[0] for item in (alone, both))
        if not np.allclose(first, second, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ModelError(
                f"{model.path}: a text has another value where a longer one shares its batch, so "
                f"its scores mean nothing: transformers' {model.architecture} computes over padding"
            )

    def _forward(self, padded: PaddedBatch) -> np.ndarray:
        """Logits (n,) or vectors (n, dim), float32; copying to the host synchronises the device."""
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


def _finite(tensor: torch.Tensor) -> bool:
    return bool(tensor.isfinite().all())


def load_library_model(deployment: Deployment) -> torch.nn.Module:
    """transformers' sequence classifier or bare encoder in the deployment's precision, on the CPU.

    Raises:
        ModelError: the folder is broken, or its model does not give one score per pair.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    folder = deployment.model
    try:
        kind: Any = AutoModel
        changes: dict[str, Any] = {}
        if folder.embedding is None:
            # One label, whether config.json says so or the head's shape alone
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
    except Exception as error:  # transformers and safetensors raise many kinds for a broken folder
        raise ModelError(
            f"transformers cannot load {folder.path} ({type(error).__name__}: {error}): "
            "check that its files are whole and belong together"
        ) from error
    # transformers makes up at random what a folder does not hold; an embedder's pooler is not used.
    unused = "pooler." if folder.embedding is not None else ()
    missing = [name for name in report["missing_keys"] if not name.startswith(unused)]
    if missing:
        raise ModelError(
            f"{folder.path} holds no {', '.join(sorted(missing)[:4])}: it is neither a whole "
            "cross-encoder nor, for want of modules.json with a pooling, a sentence-transformer"
        )
    module: torch.nn.Module = model.eval()
    return module


def sample_batch(lengths: Sequence[int]) -> TokenBatch:
    """Sequences of these token lengths, for warming up; their content does not matter."""
    total = sum(lengths)
    ids = np.full(total, 5, dtype=np.int32)
    return TokenBatch.from_lengths(ids, np.zeros(total, dtype=np.int32), lengths)
