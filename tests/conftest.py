"""Fixtures that tests share: real models made once a session, and ../shared where it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import transformers  # noqa: F401 (model folders are then read in this process, in no other)
from hydra.utils import instantiate
from mlflow.tracking import MlflowClient
from omegaconf import OmegaConf

from crossbench.models.folder import ModelFolder
from crossbench.models.sources import SeededModel
from tests.helpers.places import REPO, SHARED


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real text and real models beside the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"no real data and models in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def seeded_model(cache_dir: Path) -> ModelFolder:
    """The embedded default model, as conf/model/minilm-l6-seeded.yaml makes it."""
    source: SeededModel = instantiate(OmegaConf.load(REPO / "conf/model/minilm-l6-seeded.yaml"))
    return source.fetch(cache_dir)


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow store costs seconds of migrations, so each test gets a copy of this one."""
    store = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


@pytest.fixture
def outputs(migrated_store: Path, tmp_path: Path) -> Path:
    """An outputs folder of the test's own, with a store that needs no migration."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    shutil.copy(migrated_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def environment(seeded_model: ModelFolder) -> dict[str, str]:
    """The user's environment, with the seeded model already made."""
    return {**os.environ, "CROSSBENCH_CACHE": str(seeded_model.path.parent)}
