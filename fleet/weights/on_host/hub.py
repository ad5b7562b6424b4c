"""How Hugging Face and ModelScope are asked for a file, and what their refusals mean.

It stands alone: product code reads it too, see `common.py`.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

# What Hugging Face says why it refuses, in its own header; part of its API.
ERROR_CODE = "X-Error-Code"
_PORTS = {"http": 80, "https": 443}


def file_url(source: str, endpoint: str, repository: str, revision: str, path: str) -> str:
    """Where the content of a repository's file is asked for."""
    if source == "modelscope":
        asked = f"Revision={quote(revision, safe='')}&FilePath={quote(path, safe='')}"
        return f"{endpoint}/api/v1/models/{repository}/repo?{asked}"
    return f"{endpoint}/{repository}/resolve/{revision}/{quote(path)}"


def listing_url(source: str, endpoint: str, repository: str, revision: str) -> str:
    """Where the files of a repository are listed."""
    if source == "modelscope":
        asked = f"Revision={quote(revision, safe='')}&Recursive=True"
        return f"{endpoint}/api/v1/models/{repository}/repo/files?{asked}"
    return f"{endpoint}/api/models/{repository}/tree/{revision}?recursive=true&expand=false"


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: a token goes to no other than it was given for."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def meaning(status: int, code: str | None, *, has_token: bool) -> str:
    """What a refusal means, and what to do about it; `code` is what `ERROR_CODE` says."""
    if code in _MEANINGS:
        return _MEANINGS[code]
    if status == 401:
        return _NOT_TAKEN if has_token else _NO_REPOSITORY
    return _BY_STATUS.get(status, "")


_NOT_TAKEN = (
    "the hub does not take the token: give it a new value (weights_token names it; HF_TOKEN for "
    "`fleet weights lock`)"
)
_GATED = (
    "the repository is gated: accept its terms on its page, as the owner of a token, and give that "
    "(weights_token; HF_TOKEN for `fleet weights lock`)"
)
_NO_REPOSITORY = (
    "there is no such repository, or it is private or gated and nobody may see it without a token: "
    "check the name, or give one (weights_token; HF_TOKEN for `fleet weights lock`)"
)
_MEANINGS = {
    "GatedRepo": _GATED,
    "RepoNotFound": _NO_REPOSITORY,
    "RevisionNotFound": "the repository has no such revision: correct it, or look who removed it",
    "EntryNotFound": (
        "the repository has no such file at this revision: write the lock anew for one that has it"
    ),
}
_BY_STATUS = {
    403: _GATED,
    404: "there is no such repository, revision or file: check them, and the endpoint",
    410: "it was taken away: write the lock anew for a revision that is there",
    429: "the hub limits how often it is asked; with a token it allows more (weights_token)",
    503: "the hub is out of service for now",
}
