"""Settings of the tracker and the dashboard of a run; they do not change what is measured."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from crossbench.settings.cell_settings import to_plain
from crossbench.settings.component import Component
from crossbench.settings.places import conf_dir, outputs_dir


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The tracker and the dashboard of a run, and the overrides on its command line."""

    tracker: Component
    dashboard: Component
    outputs_dir: str
    overrides: tuple[str, ...]


def run_settings(config: DictConfig, overrides: list[str]) -> RunSettings:
    """Return the run settings of a config composed by Hydra.

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
    """Return the tracker of conf/tracker/mlflow.yaml with the default outputs/."""
    node = OmegaConf.load(conf_dir() / "tracker" / "mlflow.yaml")
    config = OmegaConf.create({"outputs_dir": str(outputs_dir()), "tracker": node})
    return Component.of("tracker", to_plain(config)["tracker"])
