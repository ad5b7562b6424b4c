"""What a hub says of a repository: its files, and the SHA-256 of each."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests
from typing_extensions import override

from fleet.kit.errors import FleetError
from fleet.kit.on_host.outside import FormError, parsed, read_all
from fleet.kit.proxy import ask_directly_if_private
from fleet.weights.lock import LockedFile, select
from fleet.weights.on_host.hub import ERROR_CODE, file_url, listing_url, meaning, origin

_LIMIT = 64 << 20  # bytes of a page of a listing
_PATIENCE = (10.0, 60.0)  # seconds for a connection, and for each word of an answer
_BUSY = (429, 500, 502, 503, 504)
_ATTEMPTS = 6
_LONGEST = 60.0  # seconds between two attempts
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TREE = [
    {
        "type": str, "path": str, "size?": int, "oid?": str,
        "lfs?": {"oid": _SHA256, "size": int},
    }
]  # fmt: skip
_COMMIT = {"sha": re.compile(r"[0-9a-f]{40}")}
_MODELSCOPE = {
    "Code": int, "Message?": str,
    "Data?": {"Files?": [{"Path": str, "Type": str, "Size?": int, "Sha256?": str}]},
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file as a hub lists it: `sha256` where it tells that, else git's own `blob` id."""

    path: str
    size: int
    sha256: str | None
    blob: str | None


class _Token(requests.auth.AuthBase):
    """Sent to one origin alone; requests takes it off where a redirection leads elsewhere."""

    def __init__(self, token: str, to: str) -> None:
        self.token, self.to = token, origin(to)

    @override
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if origin(request.url or "") == self.to:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class Hub:
    """A source of repositories at `endpoint`; `say` is told of each wait."""

    def __init__(
        self,
        source: str,
        endpoint: str,
        token: str = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        ask_directly_if_private(endpoint)
        self.source, self.endpoint, self.token, self.say = source, endpoint, token, say
        self.session = requests.Session()
        self.session.headers["Accept-Encoding"] = "identity"
        if token:
            self.session.auth = _Token(token, endpoint)

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag is at.

        Raises:
            FleetError: the hub does not say.
        """
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision
        if self.source != "huggingface":
            raise FleetError(
                f"--revision {revision}: {self.source} is asked for commits only: write one of 40 "
                "hexadecimal digits, from the page of the repository's files"
            )
        url = f"{self.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}"
        with self._ask(url) as answer:
            return str(self._value(answer, _COMMIT, url)["sha"])

    def files(self, repository: str, revision: str) -> list[Entry]:
        """All files of a repository at a commit.

        Raises:
            FleetError: the hub refuses, does not answer, or answers something else.
        """
        url = listing_url(self.source, self.endpoint, repository, revision)
        listed = self._modelscope(url) if self.source == "modelscope" else self._huggingface(url)
        return sorted(listed, key=lambda entry: entry.path)

    def locked(self, repository: str, revision: str, entry: Entry) -> LockedFile:
        """An entry with the SHA-256 of its content, which is fetched where the hub tells none.

        Raises:
            FleetError: it cannot be fetched, or is not what the hub lists.
        """
        sha256 = entry.sha256 or self._hashed(repository, revision, entry)
        return LockedFile(path=entry.path, size=entry.size, sha256=sha256)

    def _huggingface(self, first: str) -> Iterator[Entry]:
        url = first
        while url:
            with self._ask(url) as answer:
                rows = self._value(answer, _TREE, url)
                following = answer.links.get("next", {}).get("url")
            for row in rows:
                lfs = row.get("lfs")
                if row["type"] != "file":
                    continue
                size = lfs["size"] if lfs else row.get("size")
                if size is None or not (lfs or row.get("oid")):
                    raise FleetError(f"{url}: tells neither size nor id of {row['path']!r}")
                yield Entry(row["path"], size, lfs["oid"] if lfs else None, row.get("oid"))
            url = self._here(urljoin(url, following)) if following else ""

    def _here(self, url: str) -> str:
        """The next page of a listing, asked where the first one was: a mirror may name its source.

        The token goes nowhere else.
        """
        parts = urlsplit(url)
        base = urlsplit(self.endpoint)
        return f"{base.scheme}://{base.netloc}{parts.path}?{parts.query}"

    def _modelscope(self, url: str) -> Iterator[Entry]:
        with self._ask(url) as answer:
            found = self._value(answer, _MODELSCOPE, url)
        if found["Code"] != 200:
            raise FleetError(f"{url}: {found['Code']} {(found.get('Message') or '')[:200]}")
        for row in (found.get("Data") or {}).get("Files") or []:
            if row["Type"] != "blob":
                continue
            sha256 = row.get("Sha256")
            if row.get("Size") is None or not _SHA256.fullmatch(sha256 or ""):
                raise FleetError(f"{url}: tells no size or SHA-256 of {row['Path']!r}")
            yield Entry(row["Path"], row["Size"], sha256, None)

    def _hashed(self, repository: str, revision: str, entry: Entry) -> str:
        url = file_url(self.source, self.endpoint, repository, revision, entry.path)
        sha256, blob = hashlib.sha256(), _git_hash(entry)
        length = 0
        try:
            with self._ask(url) as answer:
                for block in answer.iter_content(1 << 20):
                    length += len(block)
                    if length > entry.size:
                        break
                    sha256.update(block)
                    blob.update(block)
        except requests.RequestException as error:
            raise FleetError(f"{url}: the answer broke off: {error}; run it again") from None
        if length != entry.size or blob.hexdigest() != entry.blob:
            raise FleetError(
                f"{url}: {entry.path} is listed with {entry.size} bytes and git's id {entry.blob}, "
                "and what comes is something else: a mirror or proxy on the way alters it; nothing "
                "was written"
            )
        return sha256.hexdigest()

    def _value(self, answer: requests.Response, form: Any, url: str) -> Any:
        try:
            return parsed(read_all(answer.raw, _LIMIT, 300), form, url)
        except FormError as error:
            raise FleetError(f"{error}; is {self.endpoint} a {self.source} endpoint?") from None
        except (OSError, requests.RequestException) as error:
            raise FleetError(f"{url}: the answer broke off: {error}; run it again") from None

    def _ask(self, url: str) -> requests.Response:
        """An answer that is one; a hub that is busy is asked again."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self.session.get(url, stream=True, timeout=_PATIENCE)
            except requests.RequestException as error:
                raise FleetError(f"{url}: {error}") from None
            if answer.status_code < 300:
                return answer
            answer.close()
            if answer.status_code not in _BUSY or attempt == _ATTEMPTS:
                break
            told = answer.headers.get("Retry-After", "")
            asked = float(told) if re.fullmatch(r"[0-9]{1,6}", told) else float(2**attempt)
            wait = min(asked, _LONGEST)
            self.say(f"{url}: {answer.status_code}; again in {wait:.0f} s")
            time.sleep(wait)
        code = answer.headers.get(ERROR_CODE)
        words = meaning(answer.status_code, code, has_token=bool(self.token))
        said = f"{url}: {answer.status_code} {answer.reason}"
        raise FleetError(f"{said}: {words}" if words else said)


def _git_hash(entry: Entry) -> Any:
    """What git begins the id of a blob with; a repository may be one of SHA-256."""
    kind = hashlib.sha256 if len(entry.blob or "") == 64 else hashlib.sha1
    return kind(f"blob {entry.size}\0".encode())


def chosen(
    entries: list[Entry], include: tuple[str, ...], exclude: tuple[str, ...], what: str
) -> list[Entry]:
    """The entries that the patterns choose.

    Raises:
        FleetError: a pattern matches nothing, or nothing is left. `what` names the repository.
    """
    paths, idle = select([entry.path for entry in entries], include, exclude)
    if idle:
        some = ", ".join(entry.path for entry in entries[:8])
        raise FleetError(
            f"{what}: no file matches {', '.join(map(repr, idle))}; it has {len(entries)} files, "
            f"such as {some}"
        )
    if not paths:
        raise FleetError(f"{what}: every file that is included is excluded too")
    wanted = set(paths)
    return [entry for entry in entries if entry.path in wanted]
