"""Knowledge as a proof of the store of vectors: what answered before an upgrade answers again."""

from __future__ import annotations

import http.client
import time
from typing import Any

from common import say
from dify_console import Dify, DifyError
from dify_owner import Owner

_DATASETS = "/console/api/datasets"
# It is asked of a release that is about to be stopped, and again of one that people wait for.
_MOST = 3


class Knowledge:
    """The datasets of one Dify that lie in its store of vectors."""

    def __init__(self, dify: Dify) -> None:
        self.dify = dify

    def note(self) -> None:
        """Remember which datasets answer now; what does not is nothing an upgrade could break."""
        self.dify.memory.forget("knowledge")
        try:
            Owner(self.dify).login()
            listed = self._listed()
        except DifyError as error:
            say(f"knowledge is not asked: {error}")
            return
        found = [item for item in listed if self._answers(item)][:_MOST]
        self.dify.memory.keep("knowledge", {item["id"]: item["name"] for item in found})

    def prove(self) -> None:
        """Have what was noted answer again. Raises DifyError when it does not."""
        noted = self.dify.memory.get("knowledge")
        if not noted:
            return
        Owner(self.dify).login()
        say(f"asking knowledge: {', '.join(noted.values())}")
        deadline = time.monotonic() + self.dify.config["retry_timeout"]
        for identifier, name in noted.items():
            while not self._answers({"id": identifier, "name": name}):
                if time.monotonic() > deadline:
                    raise DifyError(f"knowledge {name!r} answered before, and does not now")
                time.sleep(2)

    def _listed(self) -> list[dict[str, Any]]:
        listed = self.dify.call("GET", f"{_DATASETS}?page=1&limit=100").value["data"]
        return [
            item
            for item in listed
            if item.get("indexing_technique") == "high_quality" and item.get("document_count")
        ]

    def _answers(self, dataset: dict[str, Any]) -> bool:
        path = f"{_DATASETS}/{dataset['id']}/hit-testing"
        try:
            answer = self.dify.http.request("POST", path, {"query": dataset["name"][:200]})
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200 and bool(answer.value and answer.value.get("records"))
