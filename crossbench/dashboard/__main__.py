"""`python -m crossbench.dashboard`: the page of a running server, or of a sweep that has ended.

python -m crossbench.dashboard server.address=HOST:PORT
python -m crossbench.dashboard sweep=FOLDER
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from crossbench.dashboard.board import Board
from crossbench.dashboard.process import WebDashboard
from crossbench.errors import ConfigError
from crossbench.runner.targets import Remote
from crossbench.settings.component import Component
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.plan import composed_config
from crossbench.settings.run import run_settings
from crossbench.system.addresses import split_address

_SWEEP = "sweep="


def show(config: DictConfig, sweep: str | None) -> None:
    """Show the server at `server.address`, or the sweep in a folder, until Ctrl-C."""
    chosen = run_settings(config, []).dashboard
    settings = chosen.build()
    if not isinstance(settings, WebDashboard):
        raise ConfigError(f"dashboard={chosen.name} has no page to show: leave out this override")
    if sweep is not None:
        _show_sweep(config, settings, sweep)
    elif OmegaConf.is_missing(config.server, "address"):
        raise ConfigError(
            "there is nothing to show: give sweep=FOLDER for a sweep that has ended, or "
            "server.address=HOST:PORT for a running server"
        )
    else:
        _watch_server(config, settings)


def _show_sweep(config: DictConfig, settings: WebDashboard, sweep: str) -> None:
    from crossbench.dashboard.stored import stored_board

    if not OmegaConf.is_missing(config.server, "address"):
        raise ConfigError(f"{_SWEEP}{sweep} and server.address exclude each other: give one")
    board = stored_board(Path(sweep).expanduser())
    _serve(settings, board, f"dashboard of {sweep}", "Ctrl-C ends it")


def _watch_server(config: DictConfig, settings: WebDashboard) -> None:
    """Show a server, which may start later."""
    document = composed_config(config).document
    address = str(document["server"].get("address", ""))
    split_address(address, "server.address")
    target: Remote = Component.of("target", document["target"]).build()
    for warning in target.access.warnings(address):
        print(f"warning: {warning}", flush=True)
    board = Board(address, target.access.as_paths())
    _serve(settings, board, f"dashboard of {address}", "Ctrl-C ends the dashboard, not the server")


def _serve(settings: WebDashboard, board: Board, title: str, note: str) -> None:
    from crossbench.dashboard.pages import check_max_pages
    from crossbench.dashboard.token import check_token
    from crossbench.dashboard.web import listen, notes_of, serve, url_of

    check_token(settings.token)
    check_max_pages(settings.max_pages)
    listener = listen(settings.host, settings.port)
    for line in notes_of(listener, settings.port, settings.token):
        print(line)
    print(f"{title}: {url_of(listener)}  ({note})", flush=True)
    # uvicorn ends the page on a signal, and then raises the signal again
    with contextlib.suppress(KeyboardInterrupt):
        serve(listener, board, None, lambda: None, settings.token, settings.max_pages)


def _take_sweep(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the folder of `sweep=FOLDER`, which is no setting of a cell, and other arguments."""
    given = [argument for argument in arguments if argument.startswith(_SWEEP)]
    others = [argument for argument in arguments if not argument.startswith(_SWEEP)]
    return (given[-1].removeprefix(_SWEEP) if given else None), others


if __name__ == "__main__":
    folder, sys.argv[1:] = _take_sweep(sys.argv[1:])
    launch(
        functools.partial(show, sweep=folder),
        choices=["hydra/help=dashboard", "server=remote", "target=remote", *NO_CELLS],
    )
