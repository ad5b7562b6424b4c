"""Ollama's API on this host."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

from common import BLOCK, ProgramError
from ollama_protocol import load_request

CALL_TIMEOUT = 60  # seconds for a call that answers from memory or disk
LOAD_TIMEOUT = 3600  # a load of 65 GB from a slow disk; Ollama itself gives up a stalled one


class Api:
    """One Ollama."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc

    def call(
        self, path: str, body: Any = None, method: str = "", timeout: float = CALL_TIMEOUT
    ) -> Any:
        """The answer, parsed; None when it is empty."""
        with self._open(path, body, method or ("POST" if body else "GET"), timeout) as (answer, _):
            content = answer.read()
            return json.loads(content) if content else None

    def load(self, name: str, **values: Any) -> None:
        """Have a model loaded; `values` go with the request."""
        path, body = load_request(name, self.call("/api/show", {"model": name}))
        self.call(path, {**body, **values}, timeout=LOAD_TIMEOUT)

    def stream(
        self, path: str, body: Any, timeout: float, checks: float = 0.0
    ) -> Generator[dict[str, Any], None, None]:
        """Each line of the answer, of which none may be longer than `timeout` in coming.

        While Ollama hashes what it fetched it says nothing: then `checks` seconds are added.
        Leaving the loop closes the connection, and so cancels the work.
        """
        with self._open(path, body, "POST", timeout) as (answer, connection):
            for line in answer:
                status = json.loads(line)
                is_checking = str(status.get("status", "")).startswith(("verifying", "parsing"))
                connection.settimeout(timeout + checks if is_checking else timeout)
                yield status

    def send_file(self, path: str, file: Any, length: int, timeout: float) -> None:
        """POST a file's content."""
        headers = {"Content-Length": str(length)}
        with self._open(path, file, "POST", timeout, headers) as (answer, _):
            answer.read()

    @contextlib.contextmanager
    def _open(
        self, path: str, body: Any, method: str, timeout: float, headers: Any = None
    ) -> Iterator[tuple[http.client.HTTPResponse, Any]]:
        # No proxy of the environment is asked: the API is this host's own.
        connection = http.client.HTTPConnection(self.host, timeout=timeout, blocksize=BLOCK)
        data = body if headers else json.dumps(body) if body else None
        try:
            connection.request(method, path, data, {"Connection": "close", **(headers or {})})
            socket = connection.sock
            with connection.getresponse() as answer:
                if answer.status >= 300:
                    text = answer.read().decode(errors="replace").strip()
                    raise ProgramError(f"{path}: {answer.status} {text}")
                yield answer, socket
        except http.client.HTTPException as error:
            raise ProgramError(f"{path}: the connection ended: {error!r}") from None
        finally:
            connection.close()
