"""`python -m crossbench.serve`: run only the server, until SIGTERM, SIGHUP or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from crossbench.dashboard.address import wait_for_url
from crossbench.dashboard.journal import FileJournal, Journal, NoJournal
from crossbench.dashboard.process import JOURNAL_FILE, Dashboard, NoDashboard
from crossbench.errors import ConfigError
from crossbench.events import RunEnded, ServerConfigured, ServerListens
from crossbench.runner.checks import check_config, check_support
from crossbench.runner.compose import server_maker
from crossbench.runner.models import fetch_model
from crossbench.runner.ray_target import RayServe
from crossbench.serving import inference_pb2 as pb
from crossbench.serving.access import ClientAccess
from crossbench.serving.client import InferenceClient
from crossbench.serving.ending import Ending, in_thread
from crossbench.serving.event_loop import run
from crossbench.serving.server import Server
from crossbench.serving.server_settings import ServerSettings
from crossbench.settings.launch import NO_CELLS, launch
from crossbench.settings.plan import composed_config
from crossbench.settings.run import run_settings
from crossbench.wording import counted

RAY_END_S = 15.0  # for the processes of Ray
UNLOAD_S = 0.7  # for unloading the model; nothing is lost if it takes longer and is killed


def serve(config: DictConfig) -> None:
    """Load the model, print the address, serve until SIGTERM, SIGHUP or Ctrl-C.

    Then the process ends with status 0, within `server.grace_s` plus two seconds; a second signal
    ends it at once.
    """
    plan = check_config(composed_config(config))
    if plan.server is None:
        raise ConfigError(
            "server=remote is a server that is already running: leave it out, or give "
            "server=standalone"
        )
    check_support(plan)
    limits: ServerSettings = plan.server.build()
    limits.check_listen()
    for warning in limits.warnings():
        print(f"warning: {warning}", flush=True)
    target = plan.target.build()
    on_ray = target if isinstance(target, RayServe) else None
    ending = Ending(limits.grace_s + (RAY_END_S if on_ray else 0.0))
    ending.install()
    model = fetch_model(plan)
    dashboard: Dashboard = run_settings(config, []).dashboard.build()
    with _temporary_folder(dashboard) as folder:
        ending.folders += [folder] if folder is not None else []
        path = (folder or Path()) / JOURNAL_FILE
        # Its start takes a second of CPU time, so it comes before serving
        dashboard.start(path, temporary=True)
        print(f"loading {model.name} for backend={plan.backend.name} ...", flush=True)
        try:
            make_server = server_maker(plan, model)
            server = None if on_ray else in_thread(make_server)
            url = _url(dashboard)
            journal = FileJournal(path) if url else NoJournal()
            journal.write(ServerConfigured(plan.config.texts))
            access = limits.client_access()
            if on_ray:
                asyncio.run(_run_on_ray(on_ray, make_server, journal, access, ending))
            elif server:
                run(_run(server, journal, access, ending))
        finally:
            dashboard.close()
        ending.end()


@contextlib.contextmanager
def _temporary_folder(dashboard: Dashboard) -> Iterator[Path | None]:
    """Yield a temporary folder for the journal; None if there is no dashboard to read it."""
    if isinstance(dashboard, NoDashboard):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="crossbench-") as folder:
        yield Path(folder)


def _url(dashboard: Dashboard) -> str | None:
    """Wait for the dashboard and return its URL; print a warning if it does not start."""
    show = partial(print, flush=True)
    return wait_for_url(
        dashboard, show, lambda reason: show(f"dashboard: {reason} (serving without it)")
    )


async def _run(server: Server, journal: Journal, access: ClientAccess, ending: Ending) -> None:
    address = await server.start()
    journal.write(ServerListens(address, access.as_paths()))
    _show(server.info, address, server.http_url)
    await _until_signalled(journal, ending)
    await server.stop(UNLOAD_S)
    _say("ended")


async def _run_on_ray(
    target: RayServe,
    make_server: Callable[..., Server],
    journal: Journal,
    access: ClientAccess,
    ending: Ending,
) -> None:
    if target.address is None:
        ending.folders.append(target.cluster.make_folder())
    try:
        address = await target.open(make_server)
        journal.write(ServerListens(address, access.as_paths()))
        async with InferenceClient(address, access) as client:
            _show(await client.info(), address)
        await _until_signalled(journal, ending)
    finally:
        await target.close()
    _say("ended")


def _show(info: pb.ServerInfo, address: str, http_url: str = "") -> None:
    served = info.models[0]
    print(
        f"crossbench serves {served.name} ({served.architecture}) with {served.backend} "
        f"{served.quant} on {served.device}, {counted(info.workers, 'worker')} x "
        f"{counted(info.threads, 'thread')}",
        f"listening on {address} (gRPC crossbench.v1.Inference); Ctrl-C or SIGTERM stops it",
        sep="\n",
        flush=True,
    )
    if http_url:
        print(
            f"listening on {http_url} (HTTP: the APIs of TEI, Cohere, Jina, vLLM, OpenAI)",
            flush=True,
        )
    if served.caveat:
        print(served.caveat, flush=True)


async def _until_signalled(journal: Journal, ending: Ending) -> None:
    """Wait for the signal that ends the server, and tell everyone."""
    drain = asyncio.Event()
    ending.drain_by(drain)
    await drain.wait()
    with contextlib.suppress(OSError):
        journal.write(RunEnded("the server has ended", interrupted=False))
    _say("stopping: new requests are refused, requests in flight are completed")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal has been closed
        print(text, flush=True)


if __name__ == "__main__":
    launch(serve, choices=["hydra/help=serve", "server=standalone", *NO_CELLS])
