"""A hub of model repositories, over plain HTTP: it stands for Hugging Face, and for ModelScope.

It keeps what clients lean on, as Hugging Face's own client was seen to (2.4.0, which downloads from
it): the listing in pages with a ``Link``, git's ids of small files and the SHA-256 of large ones,
``X-Repo-Commit``, small files behind a redirection to a cache on the same host, large ones behind
one to a storage on another port, byte ranges there, and ``X-Error-Code`` beside 401, 403 and 404.
Of ModelScope it keeps what its client's source (1.20.0) asks. Faults are those of ``faults.py``;
``429`` and ``503`` come with ``Retry-After: 1``.

``python -m lab.upstream.hub --listen HOST:PORT --storage HOST:PORT --folder FOLDER`` serves each
``FOLDER/<organisation>/<name>`` as the only commit of a repository, and prints that.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import signal
import tempfile
import threading
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from lab.upstream.server import Handler, Server

LARGE = 100_000  # bytes from which on a file is not git's own
_JSON = {"Content-Type": "application/json; charset=utf-8"}


@dataclass(frozen=True)
class Content:
    """A file: its bytes, git's id of it, and its SHA-256."""

    size: int
    blob: str
    sha256: str

    @property
    def is_large(self) -> bool:
        """Whether git has a pointer to it alone."""
        return self.size >= LARGE


@dataclass
class Repository:
    """A repository of one commit; with a ``token`` it is gated."""

    commit: str
    files: dict[str, Content]
    token: str | None = None


class _Recording(Handler):
    """Notes who asked for what, and with which headers."""

    server: Hub | Storage

    def answer(self, *, body: bool) -> None:
        """Answer as ever."""
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        if not self.server.knows_ranges:
            del self.headers["Range"]
        super().answer(body=body)


class HubHandler(_Recording):
    """One request to the hub."""

    server: Hub

    def respond(self, path: str, *, body: bool) -> None:
        """Answer as the hub does."""
        if self.fault and self.fault.status:
            self._refuse(self.fault.status, "", body=body)
        elif path.startswith("/api/v1/models/"):
            self._modelscope(path.removeprefix("/api/v1/models/"), body=body)
        elif path.startswith("/api/models/"):
            self._listing(path.removeprefix("/api/models/"), body=body)
        elif path.startswith("/api/resolve-cache/models/"):
            name, _, rest = path.removeprefix("/api/resolve-cache/models/").rpartition("@")
            self._file(name, *rest.partition("/")[::2], body=body, cached=True)
        elif "/resolve/" in path:
            name, _, rest = path.lstrip("/").partition("/resolve/")
            self._file(name, *rest.partition("/")[::2], body=body)
        else:
            self._refuse(404, "", body=body)

    def _allowed(self, name: str, *, body: bool) -> Repository | None:
        found = self.server.repositories.get(name)
        given = self.headers.get("Authorization")
        if found is None:
            self._refuse(404 if given else 401, "RepoNotFound", body=body)
        elif found.token and given != f"Bearer {found.token}":
            self._refuse(403 if given else 401, "GatedRepo", body=body)
        else:
            return found
        return None

    def _listing(self, rest: str, *, body: bool) -> None:
        name, kind, revision = rest.rsplit("/", 2)
        if not (found := self._allowed(name, body=body)):
            return
        if revision not in ("main", found.commit):
            self._refuse(404, "RevisionNotFound", body=body)
        elif kind == "revision":
            siblings = [{"rfilename": path} for path in found.files]
            self._say({"id": name, "sha": found.commit, "siblings": siblings}, body=body)
        else:
            rows = [_row(path, content) for path, content in sorted(found.files.items())]
            folders = {path.rpartition("/")[0] for path in found.files} - {""}
            rows += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
                     for path in sorted(folders)]  # fmt: skip
            asked = parse_qs(urlsplit(self.path).query)
            first = int(asked.get("cursor", ["0"])[0])
            last = first + self.server.page
            headers = {}
            if last < len(rows):
                following = f"{self.server.names_itself}/api/models/{name}/tree/{revision}"
                headers["Link"] = f'<{following}?recursive=true&cursor={last}>; rel="next"'
            self._say(rows[first:last], headers, body=body)

    def _modelscope(self, rest: str, *, body: bool) -> None:
        name, _, kind = rest.partition("/repo")
        asked = parse_qs(urlsplit(self.path).query)
        found = self.server.repositories.get(name)
        if found is None or asked["Revision"] != [found.commit]:
            self._say({"Code": 10010205001, "Message": "not found", "Success": False},
                      status=404, body=body)  # fmt: skip
        elif kind == "/files":
            rows = [
                {"Name": Path(path).name, "Path": path, "Type": "blob", "Size": content.size,
                 "Sha256": content.sha256, "IsLFS": content.is_large}
                for path, content in found.files.items()
            ]  # fmt: skip
            self._say({"Code": 200, "Data": {"Files": rows}, "Success": True}, body=body)
        else:
            self._content(found.files[asked["FilePath"][0]], {}, body=body)

    def _file(
        self, name: str, revision: str, path: str, *, body: bool, cached: bool = False
    ) -> None:
        if not (found := self._allowed(name, body=body)):
            return
        if revision not in ("main", found.commit):
            self._refuse(404, "RevisionNotFound", body=body)
            return
        if path not in found.files:
            self._refuse(404, "EntryNotFound", body=body)
            return
        content = found.files[path]
        headers = {"X-Repo-Commit": found.commit}
        if content.is_large:
            headers |= {
                "X-Linked-Etag": f'"{content.sha256}"',
                "X-Linked-Size": str(content.size),
                "Location": f"{self.server.storage.url}/{content.sha256}?X-Signature=abc",
            }
            self.send(HTTPStatus.FOUND, headers, b"", body=body)
        elif not cached:
            place = f"/api/resolve-cache/models/{name}@{found.commit}/{quote(path)}"
            headers |= {"Location": place, "ETag": f'"{content.blob}"'}
            self.send(HTTPStatus.TEMPORARY_REDIRECT, headers, b"", body=body)
        else:
            self._content(content, headers | {"ETag": f'"{content.blob}"'}, body=body)

    def _content(self, content: Content, headers: dict[str, str], *, body: bool) -> None:
        with (self.server.root / content.sha256).open("rb") as file:
            self.send_file(file, content.size, headers, body=body)

    def _say(
        self, value: Any, headers: dict[str, str] | None = None, status: int = 200, *, body: bool
    ) -> None:
        content = json.dumps(value).encode()
        self.send(HTTPStatus(status), {**_JSON, **(headers or {})}, content, body=body)

    def _refuse(self, status: int, code: str, *, body: bool) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": "refused"} if code else {}
        if status in (429, 503):
            headers["Retry-After"] = "1"
        self._say({"error": "refused"}, headers, status, body=body)


def _row(path: str, content: Content) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": content.size, "oid": content.blob}
    if content.is_large:
        row["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": 134}
    return row


class Storage(Server):
    """Where large files are: by their SHA-256, and to whoever has the address."""

    knows_ranges = True

    def __init__(self, root: Path, host: str, port: int) -> None:
        """Listen at once."""
        super().__init__(root, host, port, _Recording)
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.server_address[0]!s}:{self.server_port}"


class Hub(Server):
    """The hub; `page` is how many entries a page of a listing has.

    Files are kept in `root`. `names_itself` is the address that it writes into its answers, which
    behind a mirror is not the one that was asked.
    """

    knows_ranges = True

    def __init__(self, root: Path, listen: tuple[str, int], storage: tuple[str, int]) -> None:
        """Listen at once, with its storage; ``serve_forever`` answers for the hub alone."""
        super().__init__(root, *listen, HubHandler)
        self.storage = Storage(root, *storage)
        self.storage.faults = self.faults
        self.repositories: dict[str, Repository] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.page = 1000
        self.names_itself = self.url

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    def publish(self, name: str, files: dict[str, bytes], token: str | None = None) -> Repository:
        """Have `files` as the only commit of a repository."""
        contents = {path: self._keep(content) for path, content in files.items()}
        told = json.dumps(sorted((path, item.sha256) for path, item in contents.items()))
        commit = hashlib.sha1(f"{name}{told}".encode()).hexdigest()  # noqa: S324 - git's
        self.repositories[name] = Repository(commit, contents, token)
        return self.repositories[name]

    def _keep(self, content: bytes) -> Content:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.root / sha256).write_bytes(content)
        head = f"blob {len(content)}\0".encode()
        blob = hashlib.sha1(head + content).hexdigest()  # noqa: S324 - git's
        return Content(len(content), blob, sha256)

    @contextlib.contextmanager
    def serving(self) -> Any:
        """Answer meanwhile, hub and storage."""
        threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            for server in (self, self.storage)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for server in (self, self.storage):
                server.shutdown()
                server.server_close()
            for thread in threads:
                thread.join()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lab.upstream.hub", description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--storage", required=True, metavar="HOST:PORT")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as root:
        hub = Hub(Path(root), _address(arguments.listen), _address(arguments.storage))
        for folder in sorted(arguments.folder.glob("*/*")):
            name = str(folder.relative_to(arguments.folder))
            paths = [path for path in folder.rglob("*") if path.is_file()]
            files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
            print(name, hub.publish(name, files).commit, flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt), hub.serving():
            signal.pause()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
