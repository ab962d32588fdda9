"""`python -m crossbench.doctor`: what this machine can run, and what brings the rest.

`device=cuda` asks for one device instead of the best; `--json` prints the same for programs. The
backends are those that Hydra finds in conf/backend (and in `--config-dir`).
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
from crossbench.settings.composition_errors import CONFIG_NAME
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.plan import CellPlan, composed_plan
from crossbench.types import Quant

# What makes a precision fast on a CPU: any of the flags does.
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
    """A backend of conf/backend: its natural precision, and what each comes to here."""

    name: str
    backend: type[Checkable]
    natural: Quant
    found: dict[Quant, Availability]


def examine(overrides: list[str]) -> list[Choice]:
    """Every backend that Hydra finds, for the device that the overrides ask for.

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


def as_text(choices: list[Choice], place: dict[str, Any]) -> str:
    """The machine, the table, and below it what is missing."""
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
    legend = ["yes  runs here; yes* is what the backend takes where quant= is not given"]
    every = [item for choice in choices for item in choice.found.values()]
    if unsupported := [item for item in every if isinstance(item, Unsupported)]:
        on_any = all(item.is_quant for item in unsupported)
        here = "" if on_any else ", or not on the device that was asked for"
        legend.append(f"-    the backend has no such precision{here}")
    if notes:
        legend.append(
            "[n]  does not run here: what is missing stands below; of [1]/[2] either will do"
        )
    numbered = [f"[{number}]  {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*_machine(place), "", table, "", *legend, *[""] * bool(notes), *numbered])


def as_json(choices: list[Choice], place: dict[str, Any]) -> str:
    """`environment`, `compiler` and `backends`: name -> natural precision and each precision's."""

    def plain(found: Availability) -> dict[str, Any]:
        return {"status": type(found).__name__.lower(), **asdict(found)}

    backends = {
        choice.name: {
            "natural": choice.natural.value,
            "quant": {quant.value: plain(found) for quant, found in choice.found.items()},
        }
        for choice in choices
    }
    document = {"environment": place, "compiler": cpp_compiler(), "backends": backends}
    return json.dumps(document, indent=2)


def _machine(place: dict[str, Any]) -> list[str]:
    flags = set(place["cpu_flags"])
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    features = _ARM_FEATURES if is_arm else _CPU_FEATURES
    has = [name for name, any_of in features.items() if flags & any_of]
    lacks = [name for name in features if name not in has]
    versions = place["versions"]
    engines = [f"{name} {versions[name]}" for name in _ENGINES if name in versions]
    lines = {
        "machine": f"{place['cpu']}, {place['cores_usable']} usable cores, "
        f"{place['memory_total_mb'] / 1e3:.1f} GB of memory, {place['os']}",
        "CPU has": ", ".join(has) or "none of the features that matter",
        "CPU lacks": ", ".join(lacks) or "nothing that matters",
        "GPU": ", ".join(place["gpus"]) or "none",
        "compiler": cpp_compiler() or "none",
        "versions": ", ".join(engines),
    }
    return [f"{name:<11}{text}" for name, text in lines.items()]


def main() -> None:
    wants_json = "--json" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--json"]
    if {"-m", "--multirun"} & set(sys.argv):
        sys.exit("crossbench: the doctor looks at all backends at once: leave -m out")

    def examine_and_print(config: DictConfig) -> None:
        choices = examine(list(HydraConfig.get().overrides.task))
        print((as_json if wants_json else as_text)(choices, environment()))

    launch(examine_and_print, choices=["hydra/help=doctor", *NO_CELLS])


if __name__ == "__main__":
    main()
