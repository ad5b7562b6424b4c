"""Which versions of the stores an upgrade may go between."""

from __future__ import annotations

import pytest

from dify_stores import stores_problem

POSTGRES, WEAVIATE, REDIS = "db_postgres", "weaviate", "redis"
DIGEST = "@sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("service", "before", "after", "words"),
    [
        (POSTGRES, "postgres:15-alpine", f"postgres:15-alpine{DIGEST}", None),
        (POSTGRES, "postgres:15-alpine", "mirror:5000/library/postgres:15.9", None),
        (POSTGRES, "postgres:15-alpine", "postgres:17-alpine", "own major version only"),
        (POSTGRES, "postgres:15-alpine", "postgres:14-alpine", "own major version only"),
        (POSTGRES, "postgres:15-alpine", "pgvector/pgvector:pg16", "another program"),
        (POSTGRES, "postgres:latest", "postgres:latest", None),
        (POSTGRES, "postgres:latest", "postgres:15", "these tags do not tell"),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", "semitechnologies/weaviate:1.27.9", None),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", "semitechnologies/weaviate:1.28.1", None),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", "semitechnologies/weaviate:1.39.0",
         "weaviate: weaviate:1.27.0 to weaviate:1.39.0: Weaviate goes up one minor version"),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", "semitechnologies/weaviate:1.19.0", "one m"),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", "semitechnologies/weaviate:2.0.0", "one mi"),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", None, "would be lost"),
        (REDIS, "redis:6-alpine", "redis:8-alpine", None),
        (REDIS, "redis:7.2-alpine", "redis:7.0", "does not read the files of a newer"),
        (REDIS, "redis:6.2-alpine", "redis:6-alpine", None),
        (REDIS, "redis:7.2.1", "redis:7.2.0", "does not read the files of a newer"),
        (WEAVIATE, "semitechnologies/weaviate:1.27.0", "semitechnologies/weaviate:1", "not tell"),
        (REDIS, "redis:6-alpine", "valkey/valkey:8", "another program"),
    ],
)  # fmt: skip
def test_rule(service: str, before: str, after: str | None, words: str | None) -> None:
    said = stores_problem(
        {service: {"image": before}, "api": {"image": "dify-api:1.0.0"}},
        {service: {"image": after}} if after else {},
    )
    assert bool(said) == bool(words)
    assert (words or "") in (said or "")
