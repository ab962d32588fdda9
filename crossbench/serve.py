"""`python -m crossbench.serve`: the server alone, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal

from omegaconf import DictConfig

from crossbench.app import launch
from crossbench.compose import build_server, check_support, fetch_model
from crossbench.config import check_groups, check_settings, to_plain
from crossbench.serving.server import Server


def serve(config: DictConfig) -> None:
    """Load the model, listen, print where, serve until told to stop."""
    plain = to_plain(config)
    settings = check_settings(plain)
    check_groups(plain)
    check_support(plain, settings)
    model = fetch_model(plain, settings)
    print(f"loading {model.name} for backend={plain['backend']['name']} ...", flush=True)
    asyncio.run(_run(build_server(plain, settings, model)))


async def _run(server: Server) -> None:
    address = await server.start()
    info = server.info
    served = info.models[0]
    print(
        f"crossbench serves {served.name} ({served.architecture}) with {served.backend} "
        f"{served.quant} on {served.device}, {info.workers} workers x {info.threads} threads",
        f"listening on {address} (gRPC crossbench.v1.Inference); Ctrl-C or SIGTERM ends it",
        sep="\n",
        flush=True,
    )
    if served.caveat:
        print(served.caveat, flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    print("ending: nothing new is taken, what is in flight completes", flush=True)
    await server.stop()
    print("ended", flush=True)


if __name__ == "__main__":
    launch(serve, choices=["server=standalone", "hydra.run.dir=."])
