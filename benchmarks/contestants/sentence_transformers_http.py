"""sentence-transformers' CrossEncoder behind HTTP: POST /rerank in the form of TEI.

    python -m benchmarks.contestants.sentence_transformers_http MODEL PORT

It is what one writes in half an hour: the standard library's server, a thread for each connection,
and one predict() at a time. It uses nothing of crossbench, so that it runs in an environment of its
own. Port 0 takes a free one; the URL is printed.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def main(model: str, port: str) -> None:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(model, device="cpu", trust_remote_code=False)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pairs = [(asked["query"], text) for text in asked["texts"]]
            with lock:
                scores = encoder.predict(pairs, show_progress_bar=False)
            self._answer([
                {"index": index, "score": float(score)} for index, score in enumerate(scores)
            ])  # fmt: skip

        def _answer(self, results: list[dict[str, Any]]) -> None:
            results.sort(key=lambda result: -result["score"])
            body = json.dumps(results).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
