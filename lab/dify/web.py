"""Requests, answers and routes: just enough HTTP for the stand-in."""

import json
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from http import HTTPStatus
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

JSON = "application/json"
HTML = "text/html; charset=utf-8"
EVENTS = "text/event-stream; charset=utf-8"


@dataclass
class Answer:
    """A status, headers and a body; an iterator is sent in chunks, as it comes."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    kind: str = JSON
    headers: list[tuple[str, str]] = field(default_factory=list)


class HTTPError(Exception):
    """An answer that ends the request."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__(answer.status)
        self.answer = answer


class WorkerDiedError(Exception):
    """The process that served the request is gone: the connection ends without an answer."""


def reply(value: Any, status: int = 200) -> Answer:
    """JSON."""
    return Answer(status, json.dumps(value).encode() + b"\n")


def fail(status: int, code: str, message: str) -> HTTPError:
    """An error in the shape of most of Dify's API."""
    return HTTPError(reply({"code": code, "message": message, "status": status}, status))


def invalid(message: str) -> HTTPError:
    """What most refusals are."""
    return fail(400, "invalid_param", message)


def internal() -> Answer:
    """An exception that nobody caught."""
    return reply({"message": "Internal Server Error", "code": "unknown", "status": 500}, 500)


@dataclass
class Request:
    """One request, its body read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def cookies(self) -> dict[str, str]:
        """By name."""
        jar: SimpleCookie = SimpleCookie(self.headers.get("cookie", ""))
        return {name: morsel.value for name, morsel in jar.items()}

    @property
    def bearer(self) -> str:
        """The token of the Authorization header, or nothing."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    def json(self) -> dict[str, Any]:
        """The body, which must be a JSON object.

        Raises:
            HTTPError: 415 when it is of another type, 400 when it cannot be read.
        """
        if not self.headers.get("content-type", "").startswith(JSON):
            raise fail(415, "unsupported_media_type", "Unsupported Media Type")
        value = self.loose_json()
        if value is None:
            raise fail(400, "bad_request", "Failed to decode JSON object")
        return value

    def loose_json(self) -> dict[str, Any] | None:
        """The body, whatever its type says; None when it is no JSON object."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


Handler = Callable[..., Answer]


class Router:
    """Paths with ``<name>`` for one part and ``<name:path>`` for several, to their handlers."""

    def __init__(self) -> None:
        """Begin without any."""
        self.routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Have `handler` answer; it gets the request and the parts by name."""
        pattern = re.sub(
            r"<(\w+)(:path)?>",
            lambda found: f"(?P<{found[1]}>{'.+?' if found[2] else '[^/]+'})",
            path,
        )
        self.routes.append((method, re.compile(pattern), handler))

    def answer(self, request: Request) -> Answer:
        """Route a request: 404 in HTML for an unknown path, 405 in JSON for a wrong method."""
        known = False
        for method, pattern, handler in self.routes:
            found = pattern.fullmatch(request.path)
            if not found:
                continue
            known = True
            if method == request.method:
                return handler(request, **found.groupdict())
        if known:
            message = "The method is not allowed for the requested URL."
            return fail(405, "method_not_allowed", message).answer
        return Answer(404, b"<!doctype html>\n<title>404 Not Found</title>\n", HTML)


class Server(ThreadingHTTPServer):
    """Serves a router on all interfaces or one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, router: Router, always: Mapping[str, str]) -> None:
        """Listen at once; `always` are headers of every answer."""
        super().__init__((host, port), _Connection)
        self.router = router
        self.always = always


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def handle_one_request(self) -> None:
        """Answer any method alike."""
        try:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self._serve()
            self.wfile.flush()
        except (ConnectionError, WorkerDiedError):
            self.close_connection = True

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.command,
            unquote(url.path),
            {name: values[-1] for name, values in parse_qs(url.query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )
        try:
            answer = self.server.router.answer(request)
        except HTTPError as error:
            answer = error.answer
        except WorkerDiedError:
            traceback.print_exc()
            raise
        except Exception:
            traceback.print_exc()
            answer = internal()
        self._send(request, answer)

    def _send(self, request: Request, answer: Answer) -> None:
        self.send_response_only(HTTPStatus(answer.status))
        stream = not isinstance(answer.body, bytes)
        headers = [("Content-Type", answer.kind), *self.server.always.items(), *answer.headers]
        if stream:
            headers.append(("Transfer-Encoding", "chunked"))
        elif answer.status != 204:
            headers.append(("Content-Length", str(len(answer.body))))  # type: ignore[arg-type]
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        print(f"{request.method} {request.path} {answer.status}", file=sys.stderr, flush=True)  # noqa: T201
        if isinstance(answer.body, bytes):
            if request.method != "HEAD":
                self.wfile.write(answer.body)
            return
        for block in answer.body:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def event(value: Any) -> bytes:
    """One server-sent event of JSON."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def read_events(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON of the ``data:`` lines."""
    for line in lines:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])


def file_of(request: Request, field: str) -> bytes:
    """A file of a multipart form.

    Raises:
        HTTPError: 400 when there is none of that name.
    """
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    message = message_from_bytes(head + request.body)
    for part in message.get_payload() if message.is_multipart() else []:
        if part.get_param("name", header="content-disposition") == field:  # type: ignore[union-attr]
            content = part.get_payload(decode=True)  # type: ignore[union-attr]
            assert isinstance(content, bytes)
            return content
    raise fail(400, "bad_request_key_error", f"KeyError: '{field}'")
