"""An HTTP server that does no work: it answers each request with the same 32 scores of TEI's API.

It reads no JSON. It prints its URL, and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop

RESULTS = 32
_BODY = json.dumps([{"index": index, "score": 0.5} for index in range(RESULTS)]).encode()
_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


class NullServer(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found:
            lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
            if len(body) >= int(lines[b"content-length"]):  # a client sends one at a time
                self._received = b""
                self._transport.write(_REPLY)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(NullServer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
