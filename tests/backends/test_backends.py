"""Compare scores with sentence-transformers, and check that they do not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from sentence_transformers import CrossEncoder

from crossbench.backends.base import Backend
from crossbench.backends.compilations import compilation_count
from crossbench.backends.compiled import CompiledBackend
from crossbench.errors import ModelError
from crossbench.load.datasets import TrecDataset
from crossbench.models.activation import activation_of
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.sources import LocalModel
from crossbench.models.tokenizer import PairTokenizer
from crossbench.settings.places import conf_dir
from crossbench.types import Float32Array, Pair, Quant
from tests.helpers.serving import deployment, pytorch
from tests.helpers.texts import LONG, PAIRS

COMPILED_YAML = [conf_dir() / f"backend/{name}.yaml" for name in ("packed", "compiled")]
FP32_TOLERANCE = 1e-4
BATCH_TOLERANCE = 1e-5
# bf16 has 8 significant bits: errors of up to about 1 % of a logit's spread of 1.5 per layer
HALF_TOLERANCE = {Quant.BF16: 0.15, Quant.FP16: 0.02}


def scores(backend: Backend, pairs: list[Pair]) -> Float32Array:
    model = backend.deployment.model
    batch = PairTokenizer(model).encode_pairs(pairs).batch
    return activation_of(model)(backend.infer(batch).values)


def library_scores(model: ModelFolder, pairs: list[Pair]) -> Float32Array:
    """Return the scores of sentence-transformers, one pair at a time so that nothing is padded."""
    encoder = CrossEncoder(str(model.path), device="cpu")
    predicted = encoder.predict([(pair.query, pair.passage) for pair in pairs], batch_size=1)
    return np.asarray(predicted, dtype=np.float32)


@pytest.fixture(scope="module")
def trained_model(shared: Path, cache_dir: Path) -> ModelFolder:
    source = LocalModel("trained", str(shared / "models/minilm-l6-dl19"), None)
    return source.fetch(cache_dir)


def test_seeded_scores_equal_sentence_transformers(
    seeded_model: ModelFolder, cache_dir: Path
) -> None:
    ours = scores(pytorch(seeded_model, cache_dir), PAIRS)
    np.testing.assert_allclose(
        ours, library_scores(seeded_model, PAIRS), atol=FP32_TOLERANCE, rtol=0
    )
    assert ours.std() > 0.1


def test_real_scores_equal_sentence_transformers(
    trained_model: ModelFolder, shared: Path, cache_dir: Path
) -> None:
    tokenizer = PairTokenizer(trained_model)
    folder = str(shared / "data/msmarco-dl19")
    lists = TrecDataset("trec", folder, None, None, None, None, limit=4).load(tokenizer, 0).lists
    real = [Pair(entry.query, text) for entry in lists for text in entry.passages[:6]]
    backend = pytorch(trained_model, cache_dir)
    for pairs in (PAIRS, real):  # separately: the 512 tokens of some PAIRS would pad all others
        expected = library_scores(trained_model, pairs)
        np.testing.assert_allclose(scores(backend, pairs), expected, atol=FP32_TOLERANCE, rtol=0)


def test_a_score_does_not_depend_on_its_batch(seeded_model: ModelFolder, cache_dir: Path) -> None:
    backend = pytorch(seeded_model, cache_dir)
    pair = PAIRS[0]
    alone = scores(backend, [pair])[0]
    among_long = scores(backend, [Pair("long", LONG * 12), pair])[1]
    among_short = scores(backend, [Pair("a", "b"), Pair("c", "d"), pair])[2]
    assert abs(among_long - alone) < BATCH_TOLERANCE
    assert abs(among_short - alone) < BATCH_TOLERANCE


@pytest.mark.parametrize("quant", HALF_TOLERANCE)
def test_half_precisions_are_really_used(
    seeded_model: ModelFolder, cache_dir: Path, quant: Quant
) -> None:
    half = pytorch(seeded_model, cache_dir, quant)
    assert {str(weight.dtype) for weight in half._model.parameters()} == {
        {Quant.BF16: "torch.bfloat16", Quant.FP16: "torch.float16"}[quant]
    }
    pairs = [PAIRS[0], *PAIRS[5:]]
    difference = np.abs(scores(half, pairs) - library_scores(seeded_model, pairs))
    assert 0 < difference.max() < HALF_TOLERANCE[quant]


# Linear layers are inside the compiled graph (mkl) or between graphs (onednn)
@pytest.mark.parametrize("linear", [pytest.param("mkl", marks=pytest.mark.slow), "onednn"])
def test_compiled_scores_equal_sentence_transformers(
    seeded_model: ModelFolder, cache_dir: Path, linear: str
) -> None:
    """One set of graphs serves any number of tokens: the warm-up compiles everything."""
    options = OmegaConf.to_container(OmegaConf.merge(*map(OmegaConf.load, COMPILED_YAML)))
    assert isinstance(options, dict)
    values = {key: value for key, value in options.items() if key not in ("_target_", "defaults")}
    values["linear"] = linear
    backend = CompiledBackend(deployment=deployment(seeded_model, cache_dir), **values)
    backend.load_model()
    backend.warmup([20, 30, 40])
    compiled = compilation_count()
    assert compiled
    ours = scores(backend, PAIRS)
    np.testing.assert_allclose(
        ours, library_scores(seeded_model, PAIRS), atol=FP32_TOLERANCE, rtol=0
    )
    assert scores(backend, PAIRS[:1])[0] == pytest.approx(ours[0], abs=BATCH_TOLERANCE)
    assert compilation_count() == compiled


def test_tokens_computed_includes_padding(seeded_model: ModelFolder, cache_dir: Path) -> None:
    batch = PairTokenizer(seeded_model).encode_pairs([PAIRS[0], PAIRS[1]]).batch
    inference = pytorch(seeded_model, cache_dir).infer(batch)
    assert inference.tokens_computed == 2 * int(batch.lengths.max())


def test_a_model_with_several_labels_is_refused(
    seeded_model: ModelFolder, cache_dir: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    folder = shutil.copytree(seeded_model.path, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "no", "1": "yes"}
    config["label2id"] = {"no": 0, "yes": 1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="declares 2 labels, but the weights of the head have 1"):
        read_folder(folder, "two labels", 512)
