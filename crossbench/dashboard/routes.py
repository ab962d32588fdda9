"""The routes `/metrics`, `/metrics/prometheus` and `/reset`, for programs."""

from __future__ import annotations

import time

import grpc
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from crossbench.dashboard.board import Board
from crossbench.dashboard.document import document
from crossbench.dashboard.guard import is_cross_site
from crossbench.dashboard.prometheus import BoardCollector
from crossbench.dashboard.watch import Watcher
from crossbench.serving.exposition import exposition

_TEXTS = ("text/plain", "application/openmetrics-text")


def add_routes(app: FastAPI, board: Board, watcher: Watcher) -> None:
    """Add `/metrics`, `/metrics/prometheus` and `/reset` to `app`."""

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        if wants_text(accept):
            return _text(accept)
        return JSONResponse(document(board, time.time()), headers=_FRESH)

    @app.get("/metrics/prometheus")
    async def prometheus(request: Request) -> Response:
        return _text(request.headers.get("accept", ""))

    @app.api_route("/reset", methods=["GET", "POST"])
    async def reset(request: Request) -> Response:
        # The guard allows every GET, but this one changes state
        if is_cross_site(request.headers):
            return PlainTextResponse(
                "refused: use the button on the dashboard's own page\n", status_code=403
            )
        try:
            await watcher.reset()
        except grpc.aio.AioRpcError as error:
            message = f"the server at {board.address} does not answer ({error.code().name})"
            return JSONResponse({"reset": False, "error": message}, status_code=502)
        return JSONResponse({"reset": True}, headers=_FRESH)

    def _text(accept: str) -> Response:
        body, content_type = exposition(BoardCollector(board), accept)
        return Response(body, media_type=None, headers={"content-type": content_type, **_FRESH})


_FRESH = {"cache-control": "no-store", "vary": "accept"}


def wants_text(accept: str) -> bool:
    """Whether an Accept header prefers Prometheus's text to JSON; a tie means JSON."""
    return max(_quality(accept, kind) for kind in _TEXTS) > _quality(accept, "application/json")


def _quality(accept: str, kind: str) -> float:
    """The q value of a media type in `accept`, by the most specific range (RFC 9110, 12.5.1)."""
    best = (-1, 0.0)
    for part in accept.split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        rank = {kind: 2, f"{kind.split('/')[0]}/*": 1, "*/*": 0}.get(media.lower())
        if rank is None or rank < best[0]:
            continue
        given = [word[2:] for word in parameters if word.startswith("q=")]
        try:
            best = (rank, float(given[0]) if given else 1.0)
        except ValueError:
            continue
    return best[1]
