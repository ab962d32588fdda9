"""The configuration of a cell: the command that measures it again, and all values."""

from __future__ import annotations

from collections.abc import Sequence

from crossbench.report.axes import flatten
from crossbench.report.facts import facts_table
from crossbench.report.markdown import Folded, Section
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import in_shell
from crossbench.settings.reproduce import cell_overrides, server_overrides


def configuration(config: CellConfig) -> list[Section]:
    """Return the sections: what differs from the defaults, as a command, and all values, folded."""
    values = flatten(config)
    if not values:
        return []
    table = facts_table(values, {})
    overrides = cell_overrides(config)
    if overrides is None:
        return [f"## Configuration\n\n{table}"]
    return [
        "## Configuration",
        "This command measures the cell again. It names what differs from the defaults.",
        f"    {_command(config, overrides)}",
        Folded(f"All {len(values)} values", table),
    ]


def serve_command(config: CellConfig) -> str:
    """Return the command that serves as the cell did, as a block of code; empty if unknown."""
    overrides = server_overrides(config)
    if overrides is None:
        return ""
    return f"    {in_shell('python', '-m', 'crossbench.serve', *overrides)}"


def _command(config: CellConfig, overrides: Sequence[str]) -> str:
    if config.value("server") != "remote":
        return in_shell("python", "-m", "crossbench", *overrides)
    ours = {"server=remote", "target=remote"}  # what crossbench.client has chosen
    return in_shell(
        "python", "-m", "crossbench.client", *(word for word in overrides if word not in ours)
    )
