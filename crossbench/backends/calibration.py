"""The text and the options that int8 is calibrated with, shared by every engine that needs it."""

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
    """How int8 is made.

    `text` is a file of `query<TAB>passage` lines to calibrate with; None takes the text that ships
    with crossbench, which no data set judges. `token_scales` names products, by kind ("down") or
    by name ("0.down"), whose activations take each token's own scale, which is closer and costs a
    few operations more than a calibrated one; `skip` names products that are kept in higher
    precision. `alpha` is SmoothQuant's strength by kind.
    `weight_bits` is 8, 7, or 0: 8 where the CPU adds int8 products without saturating, else 7.
    """

    text: str | None
    token_scales: Sequence[str]
    skip: Sequence[str]
    alpha: Mapping[str, float]
    weight_bits: int

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
        return text, tuple(self.token_scales), tuple(self.skip), alpha, self.weight_level()

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
    names = unskipped(weights, options)
    return quantize.plan(
        weights,
        quantize.observe(weights, calibration_batches(model, options.read_text())),
        names=names,
        token_scales=chosen(quantize.products(weights), options.token_scales, "token_scales"),
        alpha=options.alpha,
        level=options.weight_level(),
    )


def unskipped(weights: EncoderWeights, options: Int8Options) -> list[str]:
    """The products that are to be int8.

    Raises:
        ConfigError: an option names what is no product of this model.
    """
    names = list(quantize.products(weights))
    for option in ("alpha", "token_scales"):
        chosen(names, getattr(options, option), option)
    skip = chosen(names, options.skip, "skip")
    return [name for name in names if name not in skip]


def chosen(names: Collection[str], wanted: Collection[str], option: str) -> set[str]:
    """The products in `names` that `wanted` means, by name or by kind.

    Raises:
        ConfigError: something in `wanted` is neither; `option` is what the user calls it.
    """
    unknown = [word for word in wanted if word not in quantize.KINDS and word not in names]
    if unknown:
        example = next(iter(names))
        raise ConfigError(
            f"int8.{option} names {', '.join(unknown)}, which is no product of this model: give "
            f"{', '.join(sorted(quantize.KINDS))}, or one of them in one layer, such as {example}"
        )
    return {name for name in names if name in wanted or quantize.kind(name) in wanted}


def calibration_batches(model: ModelFolder, text: str) -> list[TokenBatch]:
    """Every query with its own passage and, for the scores that most pairs get, with another's.

    An embedder gets every query and every passage by itself.

    Raises:
        ConfigError: the text holds no query<TAB>passage line.
    """
    pairs = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    if not pairs:
        raise ConfigError("the calibration text holds no query<TAB>passage line: give some dozens")
    others = [[query, pairs[index - 1][1]] for index, (query, _) in enumerate(pairs)]
    tokenizer = PairTokenizer(model)
    if model.embedding is None:
        whole = tokenizer.encode_pairs([Pair(*pair) for pair in pairs + others]).batch
    else:
        whole = tokenizer.encode_texts([text for pair in pairs for text in pair]).batch
    places = np.arange(len(whole))
    return [
        whole.select(places[start : start + _PAIRS_PER_BATCH])
        for start in range(0, len(whole), _PAIRS_PER_BATCH)
    ]
