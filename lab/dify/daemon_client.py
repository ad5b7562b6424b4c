"""How the API asks the plugin daemon."""

import json
from collections.abc import Iterator
from typing import Any

import requests

from .config import Config
from .web import HTTPError, fail, internal, invalid, read_events, reply

PLUGIN = "langgenius/ollama"


class PluginError(Exception):
    """What the daemon, or the plugin in it, answered instead."""

    def __init__(self, code: int, message: str, kind: str) -> None:
        """Keep all three."""
        super().__init__(message)
        self.code, self.message, self.kind = code, message, kind


class Daemon:
    """The daemon's inner API for one workspace. Proxies of the environment are not used."""

    def __init__(self, config: Config, tenant: str) -> None:
        """Take the address and the key from the environment."""
        self.url = config.text("PLUGIN_DAEMON_URL", "http://localhost:5002")
        self.tenant = tenant
        self.timeout = config.number("PLUGIN_DAEMON_TIMEOUT", 600)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["X-Api-Key"] = config.text("PLUGIN_DAEMON_KEY")

    def get(self, path: str, **query: Any) -> Any:
        """Data of a GET."""
        return self._data("GET", f"management/{path}", params=query)

    def post(self, path: str, **how: Any) -> Any:
        """Data of a POST."""
        return self._data("POST", f"management/{path}", **how)

    def dispatch(self, path: str, data: dict[str, Any]) -> Iterator[Any]:
        """What the plugin sends, piece by piece.

        Raises:
            PluginError: in place of the next piece.
            HTTPError: the daemon does not listen; other words than for all else that it is asked.
        """
        try:
            answer = self._ask(
                "POST",
                f"dispatch/{path}",
                json={"data": data},
                headers={"X-Plugin-ID": PLUGIN},
                stream=True,
            )
        except requests.RequestException:
            raise invalid("Request to Plugin Daemon Service failed-500") from None
        with answer:
            if not answer.headers["Content-Type"].startswith("text/event-stream"):
                yield _opened(answer.json())
                return
            for item in read_events(answer.iter_lines()):
                yield _opened(item)

    def _data(self, method: str, path: str, **how: Any) -> Any:
        try:
            return _opened(self._ask(method, path, **how).json())
        except (requests.RequestException, ValueError):
            message = f"Failed to request plugin daemon, url: plugin/{self.tenant}/{path}"
            raise invalid(message) from None

    def _ask(self, method: str, path: str, **how: Any) -> requests.Response:
        url = f"{self.url}/plugin/{self.tenant}/{path}"
        try:
            return self.session.request(method, url, timeout=(5, self.timeout), **how)
        except requests.RequestException as error:
            print(f"plugin daemon: {error}", flush=True)  # noqa: T201
            raise


def _opened(envelope: dict[str, Any]) -> Any:
    if envelope["code"] == 0:
        return envelope["data"]
    try:
        detail = json.loads(envelope["message"])
    except ValueError:
        detail = {"message": envelope["message"], "error_type": "PluginDaemonInnerError"}
    raise PluginError(envelope["code"], detail["message"], detail["error_type"])


def refused(error: PluginError) -> HTTPError:
    """The console's answer to what the daemon does not do; it has no key ``status``."""
    if error.kind == "PluginDaemonUnauthorizedError":
        return fail(401, "unauthorized", error.message)
    if error.kind == "PluginDaemonInternalServerError":
        return HTTPError(internal())
    return HTTPError(reply({"code": "plugin_error", "message": error.message}, 400))
