"""Calibration text and options for int8, shared by all engines that need them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from crossbench.backends import cpu_features
from crossbench.errors import ConfigError
from crossbench.models import quantize
from crossbench.models.folder import ModelFolder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.models.weights import EncoderWeights
from crossbench.types import Pair, TokenBatch

_PAIRS_PER_BATCH = 32


@dataclass
class Int8Options:
    """Options of int8 quantisation.

    `text` is a calibration file of `query<TAB>passage` lines; None selects the text shipped with
    crossbench, which is part of no evaluation data set. `token_scales` lists linear layers, by kind
    ("down") or by name ("0.down"), whose activations get one scale per token. That is more accurate
    and slightly slower than a calibrated scale. `skip` lists linear layers that are not quantised.
    `alpha` is the SmoothQuant migration strength by kind. `weight_bits` is 8, 7 or 0; 0 selects 8
    if the CPU has int8 dot products that do not saturate, else 7.
    """

    text: str | None
    token_scales: Sequence[str]
    skip: Sequence[str]
    alpha: Mapping[str, float]
    weight_bits: int

    def weight_level(self) -> int:
        """Return the largest absolute value of a quantised weight."""
        bits = self.weight_bits or (8 if cpu_features.has_int8_dot() else 7)
        if bits not in (7, 8):
            raise ConfigError(f"weight_bits={bits} is not supported: give 7, 8, or 0 for automatic")
        return quantize.FULL_WEIGHT_LEVEL if bits == 8 else quantize.SAFE_WEIGHT_LEVEL

    def key(self) -> tuple[object, ...]:
        """Return what these options contribute to an artifact's key, including the text's hash."""
        text = hashlib.sha256(self.read_text().encode()).hexdigest()
        alpha = tuple(sorted(self.alpha.items()))
        return text, tuple(self.token_scales), tuple(self.skip), alpha, self.weight_level()

    def read_text(self) -> str:
        """Return the calibration text.

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
                "query<TAB>passage lines, or null for the text shipped with crossbench"
            ) from error


def calibrated_plan(
    model: ModelFolder, weights: EncoderWeights, options: Int8Options
) -> quantize.Plan:
    """Quantise the model's linear layers to int8 with scales from the calibration text."""
    names = quantised_names(weights, options)
    return quantize.plan(
        weights,
        quantize.observe(weights, calibration_batches(model, options.read_text())),
        names=names,
        token_scales=select_names(quantize.products(weights), options.token_scales, "token_scales"),
        alpha=options.alpha,
        level=options.weight_level(),
    )


def quantised_names(weights: EncoderWeights, options: Int8Options) -> list[str]:
    """Return the names of the linear layers to quantise.

    Raises:
        ConfigError: an option names a linear layer that this model does not have.
    """
    names = list(quantize.products(weights))
    for option in ("alpha", "token_scales"):
        select_names(names, getattr(options, option), option)
    skip = select_names(names, options.skip, "skip")
    return [name for name in names if name not in skip]


def select_names(names: Collection[str], wanted: Collection[str], option: str) -> set[str]:
    """Return the entries of `names` that `wanted` lists by name or by kind.

    Raises:
        ConfigError: `wanted`, the value of `int8.<option>`, has an entry that is neither.
    """
    unknown = [item for item in wanted if item not in quantize.KINDS and item not in names]
    if unknown:
        example = next(iter(names))
        raise ConfigError(
            f"int8.{option} names {', '.join(unknown)}, but this model has no such linear layer: "
            f"give a kind ({', '.join(sorted(quantize.KINDS))}) or a name such as {example}"
        )
    return {name for name in names if name in wanted or quantize.kind(name) in wanted}


def calibration_batches(model: ModelFolder, text: str) -> list[TokenBatch]:
    """Tokenise the calibration text into batches.

    Each query is paired with its own passage and with another query's passage, because most pairs
    that a reranker scores are irrelevant. For an embedder, queries and passages are single texts.

    Raises:
        ConfigError: the text has no query<TAB>passage line.
    """
    pairs = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    if not pairs:
        raise ConfigError(
            "the calibration text has no query<TAB>passage line: give a few dozen such lines"
        )
    others = [[query, pairs[index - 1][1]] for index, (query, _) in enumerate(pairs)]
    tokenizer = PairTokenizer(model)
    if model.embedding is None:
        batch = tokenizer.encode_pairs([Pair(*pair) for pair in pairs + others]).batch
    else:
        batch = tokenizer.encode_texts([text for pair in pairs for text in pair]).batch
    indices = np.arange(len(batch))
    return [
        batch.select(indices[start : start + _PAIRS_PER_BATCH])
        for start in range(0, len(batch), _PAIRS_PER_BATCH)
    ]
