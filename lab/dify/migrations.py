"""The database's schema, one revision after another, as ``flask upgrade-db`` brings it."""

import sys

from .state import State

LOCK = "db_upgrade_lock"

_FIRST = """
CREATE TABLE dify_setups (version text PRIMARY KEY, setup_at timestamp NOT NULL);
CREATE TABLE accounts (
    id uuid PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE, password text NOT NULL,
    password_salt text NOT NULL, interface_language text NOT NULL, timezone text NOT NULL,
    created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE tenants (
    id uuid PRIMARY KEY, name text NOT NULL, encrypt_public_key text,
    created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE tenant_account_joins (
    tenant_id uuid NOT NULL, account_id uuid NOT NULL, role text NOT NULL);
CREATE TABLE tenant_plugin_auto_upgrade_strategies (
    tenant_id uuid NOT NULL, category text NOT NULL, strategy_setting text NOT NULL,
    upgrade_time_of_day int NOT NULL, upgrade_mode text NOT NULL, exclude_plugins jsonb NOT NULL,
    include_plugins jsonb NOT NULL, PRIMARY KEY (tenant_id, category));
CREATE TABLE provider_model_credentials (
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL, provider_name text NOT NULL,
    model_name text NOT NULL, model_type text NOT NULL, credential_name text NOT NULL,
    encrypted_config jsonb NOT NULL, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE provider_models (
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL, provider_name text NOT NULL,
    model_name text NOT NULL, model_type text NOT NULL, credential_id uuid,
    encrypted_config jsonb NOT NULL, created_at timestamp NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, provider_name, model_name, model_type));
CREATE TABLE provider_model_settings (
    tenant_id uuid NOT NULL, provider_name text NOT NULL, model_name text NOT NULL,
    model_type text NOT NULL, enabled boolean NOT NULL,
    PRIMARY KEY (tenant_id, provider_name, model_name, model_type));
CREATE TABLE tenant_default_models (
    tenant_id uuid NOT NULL, provider_name text NOT NULL, model_name text NOT NULL,
    model_type text NOT NULL, PRIMARY KEY (tenant_id, model_type));
CREATE TABLE apps (
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL, name text NOT NULL, description text NOT NULL,
    mode text NOT NULL, icon text, icon_background text, enable_site boolean NOT NULL,
    enable_api boolean NOT NULL, model_config jsonb, draft jsonb,
    created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE datasets (
    id uuid PRIMARY KEY, tenant_id uuid NOT NULL, name text NOT NULL, indexing_technique text,
    document_count int NOT NULL, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE workflows (
    id uuid PRIMARY KEY, app_id uuid NOT NULL, graph jsonb NOT NULL, marked_name text NOT NULL,
    marked_comment text NOT NULL, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE api_tokens (
    id uuid PRIMARY KEY, app_id uuid NOT NULL, token text NOT NULL UNIQUE,
    last_used_at timestamp, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE conversations (
    id uuid PRIMARY KEY, app_id uuid NOT NULL, name text NOT NULL,
    created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE messages (
    id uuid PRIMARY KEY, app_id uuid NOT NULL, conversation_id uuid NOT NULL, query text NOT NULL,
    answer text NOT NULL, created_at timestamp NOT NULL DEFAULT now());
"""
# The code of 1.17 reads the new name only, and that of 1.16 the old one. Slow, as with much data:
# meanwhile the other containers find the lock taken, and serve.
_RENAME = """
SELECT pg_sleep(6);
ALTER TABLE tenant_default_models RENAME COLUMN model_name TO model;
ALTER TABLE messages ADD COLUMN from_version text;
"""
_LOSE = "ALTER TABLE provider_models DROP COLUMN encrypted_config;"

# The first release that has a revision, the revision, and what it does.
REVISIONS = (
    ((1, 14, 0), "64b051264f32", _FIRST),
    ((1, 17, 0), "b2ddf6c4a1e8", _RENAME),
    ((1, 17, 2), "d57accd375ae", _LOSE),
)


def number(version: str) -> tuple[int, ...]:
    """A release as a tuple of numbers."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def upgrade(state: State) -> int:
    """Bring the schema to this release's; the exit status.

    While another container has the lock it does nothing, and says so with a status of 0.
    """
    print("Preparing database migration...", flush=True)  # noqa: T201
    if not state.redis.set(LOCK, "1", nx=True, ex=60):
        print("Database migration skipped", flush=True)  # noqa: T201
        return 0
    try:
        return _upgrade(state)
    finally:
        state.redis.delete(LOCK)


def _upgrade(state: State) -> int:
    print("Starting database migration.", flush=True)  # noqa: T201
    own = [item for item in REVISIONS if item[0] <= number(state.config.version)]
    names = [revision for _, revision, _ in own]
    with state.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num text PRIMARY KEY)")
        cursor.execute("SELECT version_num FROM alembic_version")
        rows = cursor.fetchall()
        current = rows[0]["version_num"] if rows else None
        if current and current not in names:
            # What an older release says to the database of a newer one.
            print(f"Can't locate revision identified by '{current}'", file=sys.stderr, flush=True)  # noqa: T201
            return 1
        done = names.index(current) + 1 if current else 0
        for _, revision, statements in own[done:]:
            print(f"Running upgrade  -> {revision}", flush=True)  # noqa: T201
            cursor.execute(statements)
            cursor.execute("DELETE FROM alembic_version")
            cursor.execute("INSERT INTO alembic_version VALUES (%s)", (revision,))
    print("Database migration successful!", flush=True)  # noqa: T201
    return 0
