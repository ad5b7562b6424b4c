"""HTTP to Dify, its console's calls, and what is remembered of them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from common import ProgramError, write

WORKSPACE = "/console/api/workspaces/current"
PROVIDER = "langgenius/ollama/ollama"
# A cold model is loaded by the validation and by the first chat.
LONGEST_ANSWER = 600


class DifyError(ProgramError):
    """What Dify answers is not what it should."""


class StartingError(DifyError):
    """A part of Dify is not up yet: the same may be asked again."""


class RunningError(DifyError):
    """What was begun goes on by itself."""


class Answer:
    """An answer: `status`, and `value`, its JSON (None when it has none)."""

    def __init__(self, status: int, body: bytes, cookies: list[str]) -> None:
        self.status, self.body, self.cookies = status, body, cookies
        self.value: Any = None
        with contextlib.suppress(ValueError):
            self.value = json.loads(body) if body else None

    @property
    def message(self) -> str:
        """What the server says is wrong, whichever of its two shapes it uses."""
        if not isinstance(self.value, dict):
            return self.body[:200].decode(errors="replace")
        inner = self.value.get("error")
        source = inner if isinstance(inner, dict) else self.value
        return str(source.get("message") or source.get("error") or source)


class Connection:
    """HTTP to one Dify, with its cookies.

    Cookies are kept by hand: with https addresses in its settings Dify marks them Secure, and a
    client that follows the rules would not send them back over the host's own plain HTTP.
    """

    def __init__(self, url: str, timeout: float = 60) -> None:
        parts = urlsplit(url)
        self._address, self._port = str(parts.hostname), parts.port or 80
        self._timeout = timeout
        self.cookies: dict[str, str] = {}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request; `body` is JSON unless it is bytes. Raises OSError, HTTPException."""
        with contextlib.closing(self._open(timeout)) as connection:
            response = self._send(connection, method, path, body, headers or {})
            cookies = response.headers.get_all("Set-Cookie") or []
            answer = Answer(response.status, response.read(), cookies)
        for line in answer.cookies:
            name, _, value = line.split(";")[0].partition("=")
            self.cookies[name.strip()] = value
        return answer

    def events(
        self, path: str, body: Any, headers: dict[str, str], timeout: float
    ) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer, each a dict; an answer that is none is raised."""
        with contextlib.closing(self._open(timeout)) as connection:
            response = self._send(connection, "POST", path, body, headers)
            if response.status != 200:
                answer = Answer(response.status, response.read(), [])
                raise kind_of(answer)(f"{path}: {answer.status}: {answer.message}")
            try:
                for line in response:
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
            except TimeoutError:
                raise DifyError(f"{path}: no event for {timeout:.0f} s; is a worker up?") from None

    def _open(self, timeout: float | None) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(
            self._address, self._port, timeout=timeout or self._timeout
        )

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        headers = dict(headers)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        # Its name has a prefix when the cookies are Secure.
        for name, value in self.cookies.items():
            if name.endswith("csrf_token"):
                headers["X-CSRF-Token"] = value
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, path, body, headers)
        return connection.getresponse()


class Memory:
    """What only we know of earlier runs, in a root-only JSON file; losing it costs a write."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        try:
            self.values = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            self.values = {}

    def get(self, name: str) -> Any:
        """What was kept as `name`, or None."""
        return self.values.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep `value`, on the disk before this returns."""
        if self.values.get(name) != value:
            self.values[name] = value
            write(self._path, json.dumps(self.values, indent=1))

    def forget(self, name: str) -> None:
        """Keep nothing as `name`."""
        if self.values.pop(name, None) is not None:
            write(self._path, json.dumps(self.values, indent=1))


def fingerprint(value: Any) -> str:
    """A short name for a value that must not be written down."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Dify:
    """One Dify: how it is reached, and what is known of it from earlier runs."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.http = Connection(config["url"])
        self.memory = Memory(config["memory"])
        self.keys = Memory(config["keys"])

    def setup_state(self) -> str | None:
        """`not_started`, `finished`, or None while nothing answers (nginx says 502 meanwhile)."""
        try:
            answer = self.http.request("GET", "/console/api/setup", timeout=10)
        except (OSError, http.client.HTTPException):
            return None
        return str(answer.value["step"]) if answer.status == 200 and answer.value else None

    def wait_ready(self) -> str:
        """Wait for the API. /health answers 200 with its database down, so it is not asked."""
        deadline = time.monotonic() + self.config["ready_timeout"]
        while (state := self.setup_state()) is None:
            if time.monotonic() > deadline:
                raise DifyError(f"{self.config['url']}/console/api/setup: no answer of Dify's API")
            time.sleep(1)
        return state

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        ok: tuple[int, ...] = (200, 201, 204),
        timeout: float | None = None,
    ) -> Answer:
        """A console call that must succeed; tried again while a part of Dify is still starting."""
        deadline = time.monotonic() + self.config["retry_timeout"]
        while True:
            try:
                answer = self.http.request(method, path, body, timeout=timeout)
                reason = f"{answer.status}: {answer.message}"
            except (OSError, http.client.HTTPException) as error:
                answer, reason = None, str(error)
            if answer is not None and answer.status in ok:
                return answer
            lost = answer is None or answer.status in (502, 503, 504)
            # What it asked for may have been made, and asking again would make another.
            once = lost and method == "POST" and path.endswith(_MAKING)
            if once or not may_pass(answer, path) or time.monotonic() > deadline:
                raise DifyError(f"{method} {path}: {reason}")
            time.sleep(2)


def dify_of(config: str) -> Dify:
    """The Dify that the configuration file `config` is of."""
    return Dify(json.loads(Path(config).read_text()))


# Dify's own words: it has no code for any of them, and a 400 alone may be for ever. The second is
# what a chat says of a daemon that does not listen, while Redis still has the list of providers.
_STARTING = (
    "Failed to request plugin daemon",
    "Request to Plugin Daemon Service failed-500",
    "no available node, plugin runtime not found",
)


def is_starting(message: str) -> bool:
    """Whether an error says that the plugin daemon, or the plugin's process, is not up yet."""
    return any(text in message for text in _STARTING)


def kind_of(answer: Answer) -> type[DifyError]:
    """The error for a chat's answer that is none."""
    starts = answer.status == 400 and is_starting(answer.message)
    return StartingError if starts or answer.status in (502, 503, 504) else DifyError


_MAKING = ("/apps/imports", "/confirm", "/api-keys")


def may_pass(answer: Answer | None, path: str) -> bool:
    """Whether an answer is one of a Dify that still starts."""
    if answer is None or answer.status in (502, 503, 504):
        return True
    if answer.status == 400 and is_starting(answer.message):
        return True
    # The plugin's process is not up yet; nothing says so but a bare 500.
    asks_plugin = "/models/credentials" in path or path.endswith("/models")
    return answer.status == 500 and asks_plugin
