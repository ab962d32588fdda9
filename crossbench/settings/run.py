"""How a run of one cell or of a sweep is stored and watched; no part of what is measured."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from crossbench.settings.cell_settings import to_plain
from crossbench.settings.component import Component
from crossbench.settings.places import conf_dir, outputs_dir


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The tracker and the dashboard of a run, and the overrides of its command line."""

    tracker: Component
    dashboard: Component
    outputs_dir: str
    overrides: tuple[str, ...]


def run_settings(config: DictConfig, overrides: list[str]) -> RunSettings:
    """The settings of a run, of a config as Hydra composed it. Nothing else of it is looked at.

    Raises:
        ConfigError: a value of the tracker or the dashboard is missing or has the wrong type.
    """
    nodes = to_plain(OmegaConf.masked_copy(config, ["tracker", "dashboard", "outputs_dir"]))
    return RunSettings(
        tracker=Component.of("tracker", nodes["tracker"]),
        dashboard=Component.of("dashboard", nodes["dashboard"]),
        outputs_dir=str(nodes["outputs_dir"]),
        overrides=tuple(overrides),
    )


def default_tracker() -> Component:
    """What conf/tracker/mlflow.yaml says, with the checkout's outputs/: the store that runs use."""
    node = OmegaConf.load(conf_dir() / "tracker" / "mlflow.yaml")
    config = OmegaConf.create({"outputs_dir": str(outputs_dir()), "tracker": node})
    return Component.of("tracker", to_plain(config)["tracker"])
