"""Knowledge in the console: datasets, what of them lies in weaviate, and a question to one."""

import uuid
from typing import Any

import requests

from .accounts import Session
from .state import Row, State
from .web import Answer, Request, Router, fail, invalid, reply

BASE = "/console/api/datasets"


class Knowledge:
    """The routes below datasets/."""

    def __init__(self, state: State, router: Router, behind: Any) -> None:
        """Add the routes."""
        self.state = state
        for method, path, handler in (
            ("GET", "", self.listing),
            ("POST", "", self.create),
            ("POST", "/<dataset>/hit-testing", self.ask),
        ):
            router.add(method, BASE + path, behind(handler))

    def listing(self, request: Request, session: Session) -> Answer:
        """Datasets, the newest first."""
        rows = self.state.rows(
            "SELECT * FROM datasets WHERE tenant_id = %s ORDER BY created_at DESC",
            session.tenant["id"],
        )
        limit = int(request.query.get("limit", "20"))
        shown = [_summary(row) for row in rows[:limit]]
        return reply({"data": shown, "has_more": len(rows) > limit, "total": len(rows)})

    def create(self, request: Request, session: Session) -> Answer:
        """Make a dataset. `lab_texts` is the lab's own: what the real one indexes from files."""
        payload = request.json()
        if not payload.get("name"):
            raise invalid("name: Field required")
        texts = payload.get("lab_texts") or []
        technique = payload.get("indexing_technique")
        dataset = str(uuid.uuid4())
        if texts and technique == "high_quality":
            objects = [{"class": _class(dataset), "properties": {"text": text}} for text in texts]
            self._weaviate("POST", "/v1/batch/objects", json={"objects": objects})
        self.state.insert(
            "datasets", id=dataset, tenant_id=session.tenant["id"], name=payload["name"],
            indexing_technique=technique, document_count=len(texts),
        )  # fmt: skip
        row = self.state.row("SELECT * FROM datasets WHERE id = %s", dataset)
        assert row
        return reply(_summary(row), 201)

    def ask(self, request: Request, session: Session, dataset: str) -> Answer:
        """What a dataset holds on a question. A store that does not answer is a 500 with a word."""
        query = request.json().get("query")
        if not isinstance(query, str) or not 0 < len(query) <= 250:
            raise invalid("query: String should have at most 250 characters")
        row = self.state.row(
            "SELECT * FROM datasets WHERE id::text = %s AND tenant_id = %s",
            dataset, session.tenant["id"],
        )  # fmt: skip
        if not row:
            raise fail(404, "not_found", "Dataset not found.")
        found = self._weaviate("GET", "/v1/objects", params={"class": _class(dataset)})["objects"]
        records = [
            {"segment": {"content": item["properties"]["text"]}, "score": 0.5} for item in found
        ]
        return reply({"query": {"content": query}, "records": records})

    def _weaviate(self, method: str, path: str, **how: Any) -> Any:
        url = self.state.config.text("WEAVIATE_ENDPOINT", "http://weaviate:8080") + path
        headers = {"Authorization": f"Bearer {self.state.config.text('WEAVIATE_API_KEY')}"}
        try:
            answer = requests.request(method, url, headers=headers, timeout=10, **how)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise fail(500, "internal_server_error", str(error)) from error
        return answer.json()


def _class(dataset: str) -> str:
    return f"Vector_index_{dataset.replace('-', '_')}_Node"


def _summary(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "indexing_technique": row["indexing_technique"],
        "document_count": row["document_count"],
        "created_at": int(row["created_at"].timestamp()),
    }
