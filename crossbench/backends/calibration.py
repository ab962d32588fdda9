"""The text and the options that int8 is calibrated with, shared by every engine that needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from crossbench.backends import cpu_features
from crossbench.errors import ConfigError
from crossbench.models import quantize
from crossbench.models.folder import ModelFolder
from crossbench.models.weights import EncoderWeights
from crossbench.types import TokenBatch

_PAIRS_PER_BATCH = 32
_ACTIVATIONS = ("static", "token")


@dataclass
class Int8Options:
    """How int8 is made.

    `text` is a file of `query<TAB>passage` lines to calibrate with; None takes the text that ships
    with crossbench, which no data set judges. `skip` names products kept in higher precision, by
    kind ("down") or by name ("0.down"). `alpha` is SmoothQuant's strength by kind.
    `activations` says where the scales of activations come from: `static`, one per product from
    calibration, or `token`, each token's own as the model runs (closer, for a few more operations).
    `weight_bits` is 8, 7, or 0: 8 where the CPU adds int8 products without saturating, else 7.
    """

    text: str | None
    activations: str
    skip: Sequence[str]
    alpha: Mapping[str, float]
    weight_bits: int

    @property
    def per_token(self) -> bool:
        if self.activations not in _ACTIVATIONS:
            raise ConfigError(
                f"int8.activations={self.activations} is not known: give "
                f"{' or '.join(_ACTIVATIONS)}"
            )
        return self.activations == "token"

    def weight_level(self) -> int:
        """The largest integer that a weight may become."""
        bits = self.weight_bits or (8 if cpu_features.has_int8_dot() else 7)
        if bits not in (7, 8):
            raise ConfigError(f"weight_bits={bits} is not possible: give 7, 8, or 0 for automatic")
        return quantize.FULL_WEIGHT_LEVEL if bits == 8 else quantize.SAFE_WEIGHT_LEVEL

    def key(self) -> tuple[object, ...]:
        """What an artifact made with these options depends on, the text's content included."""
        text = hashlib.sha256(self.read_text().encode()).hexdigest()
        alpha = tuple(sorted(self.alpha.items()))
        return text, self.per_token, tuple(self.skip), alpha, self.weight_level()

    def read_text(self) -> str:
        """The calibration text.

        Raises:
            ConfigError: the file cannot be read.
        """
        if self.text is None:
            return files("crossbench.backends").joinpath("calibration.tsv").read_text("utf-8")
        try:
            return Path(self.text).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"int8.text={self.text} cannot be read ({error}): give a UTF-8 file of "
                "query<TAB>passage lines, or null for the text that ships with crossbench"
            ) from error


def calibrated_plan(
    model: ModelFolder, weights: EncoderWeights, options: Int8Options
) -> quantize.Plan:
    """The model's products in int8, with scales from the calibration text."""
    skip = set(options.skip)
    names = [
        name
        for name in quantize.products(weights)
        if name not in skip and name.split(".")[1] not in skip
    ]
    return quantize.plan(
        weights,
        quantize.observe(weights, calibration_batches(model, options.read_text())),
        names=names,
        alpha=options.alpha,
        level=options.weight_level(),
    )


def calibration_batches(model: ModelFolder, text: str) -> list[TokenBatch]:
    """Every query with its own passage and, for the scores that most pairs get, with another's.

    Raises:
        ConfigError: the text holds no query<TAB>passage line.
    """
    from tokenizers import Tokenizer

    pairs = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    if not pairs:
        raise ConfigError("the calibration text holds no query<TAB>passage line: give some dozens")
    others = [[query, pairs[index - 1][1]] for index, (query, _) in enumerate(pairs)]
    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.max_length)
    encoded = tokenizer.encode_batch([tuple(pair) for pair in pairs + others])
    return [
        TokenBatch.from_lengths(
            np.concatenate([np.asarray(item.ids, dtype=np.int32) for item in part]),
            np.concatenate([np.asarray(item.type_ids, dtype=np.int32) for item in part]),
            [len(item.ids) for item in part],
        )
        for part in (
            encoded[start : start + _PAIRS_PER_BATCH]
            for start in range(0, len(encoded), _PAIRS_PER_BATCH)
        )
    ]
