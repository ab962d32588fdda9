"""`python -m crossbench.dashboard server.address=HOST:PORT`: shows the page of a running server."""

from __future__ import annotations

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
    from crossbench.dashboard.web import listen, serve, url_of

    listener = listen(settings.host, settings.port)
    url = url_of(listener)
    if settings.port not in (0, listener.getsockname()[1]):
        print(f"port {settings.port} is taken, so the dashboard uses the next free one")
    print(f"dashboard of {address}: {url}  (Ctrl-C ends the dashboard, not the server)", flush=True)
    serve(listener, Board(address, target.access.as_paths()), None, lambda: None)


if __name__ == "__main__":
    launch(watch, choices=["hydra/help=dashboard", "server=remote", "target=remote", *NO_CELLS])
