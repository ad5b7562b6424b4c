"""A model registry that answers in the odd ways that real ones and their mirrors do."""

import contextlib
import hashlib
import http.client
import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Oddity:
    """A registry with one model of one blob, that answers the blob's GET in one odd way."""

    behaviour: str = "relative"
    size: int = 1000
    asked: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.content = b"\0" * (self.size - 1) + b"\1"
        self.digest = "sha256:" + hashlib.sha256(self.content).hexdigest()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_HEAD(self) -> None:
                self.reply(200, len(outer.content))

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    outer.answer(self)

            def reply(self, status: int, length: int, **headers: str) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(length)}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, r: Any) -> None:
        if "manifests" in r.path:
            layer = {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": self.digest,
                "size": self.size,
            }
            body = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
            r.reply(200, len(body))
            r.wfile.write(body)
            return
        span = r.headers.get("Range")
        self.asked.append(span or "whole")
        first, last = 0, self.size - 1
        final = "final" in r.path
        headers = {}
        if span and self.behaviour != "deaf":
            first, last = (int(n) for n in span.removeprefix("bytes=").split("-"))
        elif self.behaviour.startswith("redirect") and not final:
            host = "localhost" if "other" in self.behaviour else "127.0.0.1"
            status = 302 if "found" in self.behaviour else 307
            target = f"http://{host}:{self.server.server_port}{r.path}?final"
            r.reply(status, 0, Location=target)
            return
        port = self.server.server_port
        places = {
            "relative": r.path,
            "deaf": r.path,
            "cut": r.path,
            "held": r.path,
            "redirect+location": r.path,
        }
        places["absolute"] = f"http://127.0.0.1:{port}{r.path}"
        if self.behaviour in places:
            headers["Location"] = places[self.behaviour]
        piece = self.content[first : last + 1]
        r.reply(206 if span else 200, len(piece), **headers)
        if span and self.behaviour == "held":
            r.wfile.write(piece[: len(piece) // 2])
            r.wfile.flush()
            self.gate.wait(20)
            piece = piece[len(piece) // 2 :]
        r.wfile.write(piece)
