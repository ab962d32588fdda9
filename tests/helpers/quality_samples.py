"""A small sample of judged lists, and the settings of a cell that checks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from crossbench.models.folder import ModelFolder
from crossbench.quality.sample import QualityCheck
from crossbench.serving import inference_pb2 as pb
from crossbench.settings.cell_settings import CellSettings
from crossbench.settings.component import Component
from crossbench.settings.places import conf_dir
from crossbench.types import Pipeline, Quant, QueryPassages

LISTS = [
    QueryPassages(
        query_id=f"q{index}",
        query="which river runs to the sea",
        passage_ids=tuple(f"q{index}-{place}" for place in range(index + 2)),
        passages=tuple(f"river {'of water ' * place}number {index}" for place in range(index + 2)),
        relevance=tuple(place % 3 for place in range(index + 2)) if index else None,
    )
    for index in range(5)
]


def a_check(**changes: object) -> QualityCheck:
    node = OmegaConf.load(conf_dir() / "quality/sample.yaml")
    values = OmegaConf.to_container(OmegaConf.merge(node, changes))
    assert isinstance(values, dict)
    made: QualityCheck = Component.of("quality", values).build()
    return made


def settings(cache_dir: Path) -> CellSettings:
    return CellSettings(
        batch=2,
        concurrency=2,
        requests=1,
        max_seconds=1.0,
        warmup_requests=0,
        warmup_max_seconds=1.0,
        cell_timeout_s=None,
        loading_timeout_s=60.0,
        repeat=0,
        pipeline=Pipeline.FULL,
        device="cpu",
        seed=0,
        quant=Quant.INT8,
        cache_dir=cache_dir,
        price_per_hour=None,
    )


def info_of(model: ModelFolder, **fields: Any) -> pb.ServerInfo:
    values = {"backend": "onnx", "quant": "int8", "device": "cpu", "digest": model.digest, **fields}
    return pb.ServerInfo(models=[pb.ModelInfo(name=model.name, **values)], max_pairs=64)
