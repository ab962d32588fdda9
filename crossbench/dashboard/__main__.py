"""`python -m crossbench.dashboard server.address=HOST:PORT`: shows the page of a running server."""

from __future__ import annotations

import contextlib

from omegaconf import DictConfig

from crossbench.dashboard.board import Board
from crossbench.dashboard.process import WebDashboard
from crossbench.errors import ConfigError
from crossbench.runner.targets import Remote
from crossbench.settings.component import Component
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.plan import composed_config
from crossbench.settings.run import run_settings
from crossbench.system.addresses import split_address


def watch(config: DictConfig) -> None:
    """Show the server at `server.address` until Ctrl-C; the server may start later."""
    chosen = run_settings(config, []).dashboard
    settings = chosen.build()
    if not isinstance(settings, WebDashboard):
        raise ConfigError(f"dashboard={chosen.name} has no page to show: leave out this override")
    document = composed_config(config).document
    address = str(document["server"].get("address", ""))
    split_address(address, "server.address")
    target: Remote = Component.of("target", document["target"]).build()
    for warning in target.access.warnings(address):
        print(f"warning: {warning}", flush=True)
    from crossbench.dashboard.pages import check_max_pages
    from crossbench.dashboard.token import check_token
    from crossbench.dashboard.web import listen, notes_of, serve, url_of

    check_token(settings.token)
    check_max_pages(settings.max_pages)
    listener = listen(settings.host, settings.port)
    url = url_of(listener)
    for note in notes_of(listener, settings.port, settings.token):
        print(note)
    print(f"dashboard of {address}: {url}  (Ctrl-C ends the dashboard, not the server)", flush=True)
    board = Board(address, target.access.as_paths())
    # uvicorn ends the page on a signal, and then raises the signal again
    with contextlib.suppress(KeyboardInterrupt):
        serve(listener, board, None, lambda: None, settings.token, settings.max_pages)


if __name__ == "__main__":
    launch(watch, choices=["hydra/help=dashboard", "server=remote", "target=remote", *NO_CELLS])
