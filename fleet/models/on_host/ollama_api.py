"""Ollama's API on this host. What answers at its port is judged: it may be something else."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

from common import BLOCK, ProgramError
from ollama_protocol import (
    ANSWER_LIMIT,
    RUNNING,
    SHOWN,
    STATUS,
    STATUS_LIMIT,
    TAGS,
    load_request,
)
from outside import Form, FormError, parsed, read_all

CALL_TIMEOUT = 60  # seconds for a call that answers from memory or disk
LOAD_TIMEOUT = 3600  # a load of 65 GB from a slow disk; Ollama itself gives up a stalled one
_ERROR_LIMIT = 4096  # bytes of an error that are shown


class Api:
    """One Ollama.

    Every call raises ProgramError when it is refused, OSError when nobody answers, and FormError
    for an answer that is not Ollama's.
    """

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc

    def running(self) -> list[dict[str, Any]]:
        """The models in memory: entries of `/api/ps`."""
        return self.call("/api/ps", form=RUNNING).get("models") or []

    def tags(self) -> list[dict[str, Any]]:
        """The models on the disk: entries of `/api/tags`."""
        return self.call("/api/tags", form=TAGS).get("models") or []

    def show(self, name: str) -> dict[str, Any]:
        """What `/api/show` says of a model."""
        shown: dict[str, Any] = self.call("/api/show", {"model": name}, form=SHOWN)
        return shown

    def call(
        self,
        path: str,
        body: Any = None,
        method: str = "",
        timeout: float = CALL_TIMEOUT,
        *,
        form: Form = None,
    ) -> Any:
        """The answer, an object of the `form`; without one it is read, and of no interest."""
        with self._open(path, body, method or ("POST" if body else "GET"), timeout) as (answer, _):
            content = read_all(answer, ANSWER_LIMIT, timeout)
            return parsed(content, form, path) if form is not None else None

    def load(self, name: str, **values: Any) -> None:
        """Have a model loaded; `values` go with the request."""
        path, body = load_request(name, self.show(name))
        self.call(path, {**body, **values}, timeout=LOAD_TIMEOUT)

    def stream(
        self, path: str, body: Any, timeout: float, checks: float = 0.0
    ) -> Generator[dict[str, Any], None, None]:
        """Each line of the answer, of which none may be longer than `timeout` in coming.

        While Ollama hashes what it fetched it says nothing: then `checks` seconds are added.
        Leaving the loop closes the connection, and so cancels the work.
        """
        with self._open(path, body, "POST", timeout) as (answer, connection):
            while line := answer.readline(STATUS_LIMIT + 1):
                if len(line) > STATUS_LIMIT:
                    raise FormError(f"{path}: a line has more than {STATUS_LIMIT} bytes")
                status = parsed(line, STATUS, path)
                is_checking = (status.get("status") or "").startswith(("verifying", "parsing"))
                connection.settimeout(timeout + checks if is_checking else timeout)
                yield status

    def send_file(self, path: str, file: Any, length: int, timeout: float) -> None:
        """POST a file's content."""
        headers = {"Content-Length": str(length)}
        with self._open(path, file, "POST", timeout, headers) as (answer, _):
            read_all(answer, ANSWER_LIMIT, timeout)

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
                    text = answer.read(_ERROR_LIMIT).decode(errors="replace").strip()
                    raise ProgramError(f"{path}: {answer.status} {text}")
                yield answer, socket
        except http.client.HTTPException as error:
            raise ProgramError(f"{path}: the connection ended: {error!r}") from None
        finally:
            connection.close()
