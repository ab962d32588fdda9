"""For generated folders, scores equal sentence-transformers' scores, or the folder is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sentence_transformers import CrossEncoder, SentenceTransformer

from crossbench.errors import ModelError
from crossbench.models.activation import activation_of
from crossbench.models.reading import read_folder
from crossbench.models.sources import SeededModel
from crossbench.models.tokenizer import PairTokenizer
from crossbench.settings.component import Component
from crossbench.types import Float32Array, Pair
from tests.helpers.engine_checks import node_of
from tests.helpers.generated_folders import EMBEDDER, FORMS, changes, make
from tests.helpers.serving import deployment

PAIRS = [
    Pair("River Café", "The RIVER is naïve water"),
    Pair("River Café", "water [SEP] river 東京"),
    Pair("what is a river", "a river is water that runs down to the sea " * 3),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = SeededModel("tiny", 7, 2, 32, 2, 64, vocab_size=8000, positions=128, max_length=None)
    return tiny.fetch(tmp_path_factory.mktemp("cache")).path


def library_scores(folder: Path, form: str) -> Float32Array:
    """Return the library's scores, one pair at a time without padding.

    The precision is always float32 and the number of labels always one. If no file gives the
    number of labels, the library's default is two, which the head would contradict.
    """
    options: Any = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}
    if form == EMBEDDER:
        embedder = SentenceTransformer(str(folder), **options)
        found = [
            embedder.similarity(
                embedder.encode_query([pair.query]), embedder.encode_document([pair.passage])
            )
            for pair in PAIRS
        ]
    else:
        encoder = CrossEncoder(str(folder), num_labels=1, **options)
        found = [encoder.predict([(pair.query, pair.passage)]) for pair in PAIRS]
    scores = np.array([np.ravel(item)[0] for item in found], dtype=np.float32)
    assert np.isfinite(scores).all()
    return scores


def our_scores(folder: Path, engine_name: str) -> Float32Array:
    model = read_folder(folder, "generated")
    tokenizer = PairTokenizer(model)
    node = OmegaConf.to_container(node_of(engine_name))
    engine = Component.of("backend", node).build(deployment=deployment(model, folder))
    engine.load_model()
    try:
        embedding = model.embedding
        if embedding is None:
            values = engine.infer(tokenizer.encode_pairs(PAIRS).batch).values
            return activation_of(model)(values)
        texts = [embedding.query_prompt + pair.query for pair in PAIRS]
        texts += [embedding.passage_prompt + pair.passage for pair in PAIRS]
        vectors = embedding.truncate(engine.infer(tokenizer.encode_texts(texts).batch).values)
        assert vectors.shape[1] == model.embedding_dim
        return embedding.score(vectors, [0, 1, 2], [3, 4, 5])
    finally:
        engine.close()


@pytest.mark.parametrize("form", FORMS)
def test_scores_equal_the_librarys_or_the_folder_is_refused(form: str, base: Path) -> None:
    served = 0
    refusals: list[str] = []

    @settings(
        max_examples=34,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(changes(form), st.sampled_from(["packed", "pytorch"]))
    def check(changed: dict[tuple[str, str], Any], engine_name: str) -> None:
        nonlocal served
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "folder"
            make(base, folder, form, changed)
            try:
                ours = our_scores(folder, engine_name)
            except ModelError as error:
                refusals.append(str(error))
                return
            expected = library_scores(folder, form)
            np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=1e-4)
            served += 1

    check()
    assert all("/folder" in refusal for refusal in refusals), refusals  # each names the folder
    assert served >= 12, refusals  # a test that refuses every folder would prove nothing
