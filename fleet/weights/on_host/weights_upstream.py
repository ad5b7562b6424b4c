"""Where weights are from: how a hub is asked for a file, with a token that nobody else gets."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

from common import ProgramError
from hub import ERROR_CODE, file_url, meaning, origin
from transfer import BusyError, explained, retry_after
from weights_store import File


class Upstream:
    """Where weights are from: the address of each file, and how it is asked."""

    def __init__(self, about: dict[str, Any], token: str) -> None:
        self._about = about
        self._token = token if about["token"] else ""

    def url(self, file: File) -> str:
        """Where a file's content is."""
        return file_url(
            self._about["source"],
            self._about["endpoint"],
            self._about["repository"],
            self._about["revision"],
            file.path,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each question."""
        # Compressed, it would be other bytes than those that are counted and resumed.
        plain = {"Accept-Encoding": "identity", "User-Agent": "llm-fleet"}
        return {**plain, "Authorization": f"Bearer {self._token}"} if self._token else plain

    def refusal(self, error: urllib.error.HTTPError, url: str) -> ProgramError:
        """What a refusal means, in words."""
        found = explained(error, url)
        words = meaning(error.code, error.headers.get(ERROR_CODE), has_token=bool(self._token))
        text = f"{found}: {words}" if words else str(found)
        if isinstance(found, BusyError):
            return BusyError(text, retry_after(error))
        return type(found)(text)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections, and tells no other origin who asks."""

    def redirect_request(self, req: Any, fp: Any, code: int, *rest: Any) -> Any:
        # Python 3.10 does not know 308, which for a GET is 307.
        new = super().redirect_request(req, fp, 307 if code == 308 else code, *rest)
        if new is not None and origin(new.full_url) != origin(req.full_url):
            new.remove_header("Authorization")
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


OPENER = urllib.request.build_opener(_Redirections)
