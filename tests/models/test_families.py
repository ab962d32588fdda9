"""Test tokens, scores and the forward pass in use for every family of cross-encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from crossbench.backends.base import Backend
from crossbench.errors import ModelError
from crossbench.models.activation import activation_of, identity, sigmoid
from crossbench.models.folder import ModelFolder
from crossbench.models.reading import read_folder
from crossbench.models.tokenizer import PairTokenizer
from crossbench.types import Float32Array, Pair
from tests.helpers.engines import backend
from tests.helpers.texts import LONG, PAIRS
from tests.helpers.tiny_families import FAMILIES

TOLERANCE = 1e-4
# RoBERTa's position ids count all tokens that are not padding, wherever these are
SPECIAL = [
    Pair("a river", "runs <pad> down [PAD] to the sea"),
    Pair("a <pad> river", "<mask> </s>"),
]
TEXTS = [*PAIRS, *SPECIAL]
OTHER_ENGINES = {"openvino": "openvino", "onnx": "onnxruntime", "mlx": "mlx.core"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(family: str, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return FAMILIES[family].make(tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def expected_scores(model: ModelFolder) -> Float32Array:
    """Return the scores of sentence-transformers, one pair at a time without padding."""
    encoder = CrossEncoder(str(model.path), device="cpu")
    texts = [(pair.query, pair.passage) for pair in TEXTS]
    return np.asarray(encoder.predict(texts, batch_size=1), dtype=np.float32)


def scores(engine: Backend, pairs: list[Pair]) -> Float32Array:
    model = engine.deployment.model
    batch = PairTokenizer(model).encode_pairs(pairs).batch
    return activation_of(model)(engine.infer(batch).values)


@pytest.mark.parametrize("name", ["pytorch", "packed"])
def test_scores_equal_sentence_transformers(
    name: str, family: str, model: ModelFolder, expected_scores: Float32Array, cache_dir: Path
) -> None:
    engine = backend(name, model, cache_dir)
    assert engine.encoder == (FAMILIES[family].encoder if name == "packed" else "transformers")
    assert engine.layout == ("packed" if engine.encoder == "packed" else "padded")
    together = scores(engine, TEXTS)
    np.testing.assert_allclose(together, expected_scores, atol=TOLERANCE, rtol=0)
    for index in (0, 2, 6):
        assert scores(engine, [PAIRS[index]])[0] == pytest.approx(
            expected_scores[index], abs=TOLERANCE
        )
    assert expected_scores.std() > 0.01
    engine.close()


@pytest.mark.parametrize("name", OTHER_ENGINES)
def test_other_engines_compute_the_family_or_refuse_it(
    name: str, family: str, model: ModelFolder, expected_scores: Float32Array, cache_dir: Path
) -> None:
    pytest.importorskip(OTHER_ENGINES[name])
    if family == "bert":
        pytest.skip("each engine's own tests have this family")
    if FAMILIES[family].encoder != "packed":
        with pytest.raises(ModelError, match=f"model_type = '{family}'"):
            backend(name, model, cache_dir)
        return
    engine = backend(name, model, cache_dir)
    short = [0, 5, 6, -2, -1]  # mlx is slow on a CPU
    found = scores(engine, [TEXTS[index] for index in short])
    np.testing.assert_allclose(found, expected_scores[short], atol=TOLERANCE, rtol=0)
    engine.close()


@pytest.mark.parametrize("max_length", [128, 20, 9])
def test_tokens_equal_transformers(family: str, model: ModelFolder, max_length: int) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(model.path)
    texts = [text[:150] for pair in PAIRS for text in (pair.query, pair.passage)]
    texts += ["<mask>a </s> b[SEP]c [MASK] <pad>", "  lead", "trail  ", "a\n\nb", LONG * 3]
    pairs = [Pair(query, passage) for query in texts for passage in texts[::3]]
    wanted = reference(
        [pair.query for pair in pairs],
        [pair.passage for pair in pairs],
        truncation="longest_first",
        max_length=max_length,
        return_token_type_ids=True,
    )
    tokenizer = PairTokenizer(read_folder(model.path, family, max_length))
    batch = tokenizer.encode_pairs(pairs).batch
    assert np.array_equal(batch.input_ids, np.concatenate(wanted["input_ids"]))
    assert np.array_equal(batch.lengths, [len(row) for row in wanted["input_ids"]])
    if FAMILIES[family].types:
        assert np.array_equal(batch.type_ids, np.concatenate(wanted["token_type_ids"]))
    alone = reference(texts, truncation=True, max_length=max_length)["input_ids"]
    assert np.array_equal(tokenizer.encode_texts(texts).batch.input_ids, np.concatenate(alone))


def test_small_electra_runs_with_transformers(tmp_path: Path) -> None:
    """Its embeddings are narrower than its layers, which our encoder does not support."""
    model = FAMILIES["electra"].make(tmp_path, embedding_size=16)
    engine = backend("packed", model, tmp_path)
    assert engine.encoder == "transformers"
    expected = CrossEncoder(str(tmp_path), device="cpu").predict([("a river", "runs down")])
    assert scores(engine, [Pair("a river", "runs down")]) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json"])
def test_the_activation_is_read_from_the_folder(file: str, tmp_path: Path) -> None:
    """It is a sigmoid by default, else the one that sentence-transformers stored in `file`."""
    import json

    model = FAMILIES["distilbert"].make(tmp_path)
    assert activation_of(model) is sigmoid
    path = "torch.nn.modules.linear.Identity"
    if file == "config.json":
        config = {**json.loads((tmp_path / file).read_text())}
        config["sentence_transformers"] = {"activation_fn": path}
    else:
        CrossEncoder(str(tmp_path), device="cpu").save(str(tmp_path))
        config = {**json.loads((tmp_path / file).read_text()), "activation_fn": path}
    (tmp_path / file).write_text(json.dumps(config))
    again = read_folder(tmp_path, "again", 128)
    assert activation_of(again) is identity
    pairs = [Pair("a river", "runs down")]
    expected = CrossEncoder(str(tmp_path), device="cpu").predict([("a river", "runs down")])
    assert scores(backend("packed", again, tmp_path), pairs) == pytest.approx(expected, abs=1e-4)
