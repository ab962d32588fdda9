"""Shared fixtures: models generated once per session, and real data in ../shared if present."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers  # noqa: F401 (so that model folders are read in this process)
from hydra.utils import instantiate
from mlflow.tracking import MlflowClient
from omegaconf import OmegaConf

from crossbench.models.folder import ModelFolder
from crossbench.models.sources import SeededModel
from crossbench.settings.targets import VARIABLE
from tests.helpers.places import REPO, SHARED


@pytest.fixture(scope="session", autouse=True)
def allow_classes_of_tests() -> Iterator[None]:
    """Configs may name the classes of tests, which crossbench itself refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "tests.")
        yield


@pytest.fixture(scope="session", autouse=True)
def heed_signals() -> None:
    """Shells start background jobs with SIGINT ignored and `nohup` SIGHUP; children inherit it."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real text and real models next to the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"no real data and models in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def seeded_model(cache_dir: Path) -> ModelFolder:
    """The seeded default model of conf/model/minilm-l6-seeded.yaml."""
    source: SeededModel = instantiate(OmegaConf.load(REPO / "conf/model/minilm-l6-seeded.yaml"))
    return source.fetch(cache_dir)


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated MLflow store for tests to copy, because migrations take seconds."""
    store = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


@pytest.fixture
def outputs(migrated_store: Path, tmp_path: Path) -> Path:
    """An output folder for one test, with a migrated store."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    shutil.copy(migrated_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def environment(seeded_model: ModelFolder) -> dict[str, str]:
    """The environment variables, with a cache that has the seeded model."""
    return {**os.environ, "CROSSBENCH_CACHE": str(seeded_model.path.parent)}
