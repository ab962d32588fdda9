"""`python -m crossbench.doctor`: show what this machine can run, and how to install the rest.

`device=cuda` checks one device instead of the best one; `--json` prints JSON. The backends are
those in conf/backend and in `--config-dir`.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from crossbench.backends.availability import (
    Availability,
    Checkable,
    Ready,
    Unavailable,
    Unsupported,
    availability,
)
from crossbench.backends.devices import cpp_compiler
from crossbench.measure.probes import environment
from crossbench.report.tables import plain_table
from crossbench.result_facts import EnvironmentFacts
from crossbench.settings.composing import CONFIG_NAME
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.plan import CellPlan, composed_plan
from crossbench.types import Quant

# CPU features that make a precision fast; a CPU has a feature if it has any of its flags
_CPU_FEATURES = {
    "AVX2": {"avx2"},
    "AVX512": {"avx512f"},
    "AVX512_BF16": {"avx512_bf16"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX": {"amx_tile"},
}
_ARM_FEATURES = {
    "NEON": {"neon", "asimd"},
    "DotProd": {"asimddp"},
    "FP16": {"asimdhp"},
    "BF16": {"bf16"},
    "I8MM": {"i8mm"},
    "SVE": {"sve"},
    "SME": {"sme"},
}
_ENGINES = (
    "crossbench", "torch", "transformers", "sentence-transformers", "openvino", "onnxruntime",
    "onnxruntime-gpu", "mlx", "flash-attn", "triton",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend of conf/backend: its default precision, and the availability of each precision."""

    name: str
    backend: type[Checkable]
    natural: Quant
    found: dict[Quant, Availability]


def examine(overrides: list[str]) -> list[Choice]:
    """Check every backend that Hydra finds, for the device in the overrides.

    Raises:
        ConfigError: a value cannot be used.
    """
    choices = []
    for name in GlobalHydra.instance().config_loader().get_group_options("backend"):
        plan = _compose(name, overrides)
        backend, settings = plan.backend.type, plan.settings
        found = {quant: availability(backend, quant, settings.device) for quant in Quant}
        choices.append(Choice(name, backend, settings.quant, found))
    return choices


def _compose(backend: str, overrides: list[str]) -> CellPlan:
    others = [word for word in overrides if not word.startswith(("backend=", "quant="))]
    return composed_plan(compose(CONFIG_NAME, overrides=[*others, f"backend={backend}"]))


def as_text(choices: list[Choice], machine_facts: EnvironmentFacts) -> str:
    """Return the machine, the table of backends and the list of what is missing."""
    notes: list[str] = []

    def cell(choice: Choice, quant: Quant) -> str:
        found = choice.found[quant]
        if isinstance(found, Ready):
            return "yes" + "*" * (quant is choice.natural)
        if not isinstance(found, Unavailable):
            return "-"
        texts = [str(missing) for missing in found.lacks]
        notes.extend(text for text in texts if text not in notes)
        return "/".join(f"[{notes.index(text) + 1}]" for text in texts)

    def device(choice: Choice) -> str:
        found = [item.device for item in choice.found.values() if isinstance(item, Ready)]
        return " or ".join(dict.fromkeys(found)) or "-"

    rows = [
        (choice.name, device(choice), *(cell(choice, quant) for quant in Quant))
        for choice in choices
    ]
    table = plain_table(("backend", "device", *(quant.value for quant in Quant)), rows)
    legend = ["yes  runs here; yes* is the default precision of the backend"]
    every = [item for choice in choices for item in choice.found.values()]
    if unsupported := [item for item in every if isinstance(item, Unsupported)]:
        on_any = all(item.is_quant for item in unsupported)
        on_device = "" if on_any else ", or not on this device"
        legend.append(f"-    the backend does not support this precision{on_device}")
    if notes:
        legend.append(
            "[n]  does not run here: see note n below; for [1]/[2], either of the two is enough"
        )
    numbered = [f"[{number}]  {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(
        [*_machine(machine_facts), "", table, "", *legend, *[""] * bool(notes), *numbered]
    )


def as_json(choices: list[Choice], machine_facts: EnvironmentFacts) -> str:
    """Return JSON with `environment`, `compiler` and `backends` (by name, the precisions)."""

    def plain(found: Availability) -> dict[str, Any]:
        return {"status": type(found).__name__.lower(), **asdict(found)}

    backends = {
        choice.name: {
            "natural": choice.natural.value,
            "quant": {quant.value: plain(found) for quant, found in choice.found.items()},
        }
        for choice in choices
    }
    document = {"environment": machine_facts, "compiler": cpp_compiler(), "backends": backends}
    return json.dumps(document, indent=2)


def _machine(machine_facts: EnvironmentFacts) -> list[str]:
    flags = set(machine_facts["cpu_flags"])
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    features = _ARM_FEATURES if is_arm else _CPU_FEATURES
    has = [name for name, any_of in features.items() if flags & any_of]
    lacks = [name for name in features if name not in has]
    versions = machine_facts["versions"]
    engines = [f"{name} {versions[name]}" for name in _ENGINES if name in versions]
    lines = {
        "machine": f"{machine_facts['cpu']}, {machine_facts['cores_usable']} usable cores, "
        f"{machine_facts['memory_total_mb'] / 1e3:.1f} GB of memory, {machine_facts['os']}",
        "CPU has": ", ".join(has) or "none of the features that speed up models",
        "CPU lacks": ", ".join(lacks) or "none of them",
        "GPU": ", ".join(machine_facts["gpus"]) or "none",
        "compiler": cpp_compiler() or "none",
        "versions": ", ".join(engines),
    }
    return [f"{name:<11}{text}" for name, text in lines.items()]


def main() -> None:
    """Run the command."""
    wants_json = "--json" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--json"]
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit("crossbench: the doctor checks all backends at once: leave out -m")

    def examine_and_print(config: DictConfig) -> None:
        choices = examine(list(HydraConfig.get().overrides.task))
        print((as_json if wants_json else as_text)(choices, environment()))

    launch(examine_and_print, choices=["hydra/help=doctor", *NO_CELLS])


if __name__ == "__main__":
    main()
