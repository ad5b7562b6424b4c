"""Models of a provider: credentials that are validated by a real answer, and the default one."""

import hashlib
import json
import re
import uuid
from typing import Any

from .accounts import Session
from .daemon_client import Daemon, PluginError
from .plugins import Plugins
from .state import PrivkeyNotFoundError, Row, State, as_json
from .web import Answer, HTTPError, Request, Router, WorkerDiedError, internal, invalid, reply

BASE = "/console/api/workspaces/current"
TYPES = ("llm", "text-embedding", "rerank", "speech2text", "moderation", "tts")
HIDDEN = "[__HIDDEN__]"
SCHEMA_CACHE = 3600


def full_name(provider: str) -> str:
    """A provider's name with its plugin's."""
    return provider if "/" in provider else f"langgenius/{provider}/{provider}"


class Models:
    """The routes of model providers, and what chats take from there."""

    def __init__(self, state: State, router: Router, behind: Any, plugins: Plugins) -> None:
        """Add the routes."""
        self.state = state
        self.plugins = plugins
        # 1.17 renamed the column: its code and the database's schema belong together.
        newer = tuple(map(int, state.config.version.split(".")[:2])) >= (1, 17)
        self.model_column = "model" if newer else "model_name"
        provider = f"{BASE}/model-providers/<provider:path>"
        for method, path, handler in (
            ("GET", f"{BASE}/model-providers", self.providers),
            ("GET", f"{BASE}/models/model-types/<model_type>", self.of_type),
            ("GET", f"{BASE}/default-model", self.get_default),
            ("POST", f"{BASE}/default-model", self.set_default),
            ("POST", f"{provider}/models/credentials/validate", self.validate),
            ("POST", f"{provider}/models/credentials/switch", self.switch),
            ("GET", f"{provider}/models/credentials", self.get_credentials),
            ("POST", f"{provider}/models/credentials", self.create),
            ("PUT", f"{provider}/models/credentials", self.update),
            ("DELETE", f"{provider}/models/credentials", self.delete_credential),
            ("PATCH", f"{provider}/models/enable", self.enable),
            ("PATCH", f"{provider}/models/disable", self.disable),
            ("GET", f"{provider}/models", self.models),
            ("POST", f"{provider}/models", self.post_model),
            ("DELETE", f"{provider}/models", self.delete_model),
        ):
            router.add(method, path, behind(handler))

    # Providers.

    def providers(self, request: Request, session: Session) -> Answer:
        """What can be configured."""
        daemon = self.plugins.daemon(session)
        return reply({"data": [self._provider(session, p) for p in self.plugins.providers(daemon)]})

    def _provider(self, session: Session, found: dict[str, Any]) -> dict[str, Any]:
        name = f"{found['plugin_id']}/{found['provider']}"
        rows = self._rows(session, name)
        return {
            "tenant_id": str(session.tenant["id"]),
            "provider": name,
            "label": found["declaration"]["label"],
            "supported_model_types": found["declaration"]["supported_model_types"],
            "configurate_methods": found["declaration"]["configurate_methods"],
            "preferred_provider_type": "custom",
            "custom_configuration": {
                "status": "active" if rows else "no-configure",
                "custom_models": [
                    {"model": row["model_name"], "model_type": row["model_type"]} for row in rows
                ],
            },
        }

    def _declaration(self, session: Session, provider: str) -> dict[str, Any]:
        for found in self.plugins.providers(self.plugins.daemon(session)):
            if f"{found['plugin_id']}/{found['provider']}" == provider:
                declaration: dict[str, Any] = found["declaration"]
                return declaration
        raise invalid(f"Provider {provider} does not exist.")

    def _rows(self, session: Session, provider: str) -> list[Row]:
        return self.state.rows(
            "SELECT * FROM provider_models WHERE tenant_id = %s AND provider_name = %s"
            " ORDER BY created_at",
            session.tenant["id"], provider,
        )  # fmt: skip

    def models(self, request: Request, session: Session, provider: str) -> Answer:
        """The models of a provider."""
        provider = full_name(provider)
        declared = self._declaration(session, provider)
        return reply(
            {"data": [self._model(session, declared, r) for r in self._rows(session, provider)]}
        )

    def of_type(self, request: Request, session: Session, model_type: str) -> Answer:
        """The models of a type, by provider."""
        found = []
        for item in self.plugins.providers(self.plugins.daemon(session)):
            name = f"{item['plugin_id']}/{item['provider']}"
            rows = [r for r in self._rows(session, name) if r["model_type"] == model_type]
            if rows:
                models = [self._model(session, item["declaration"], r) for r in rows]
                found.append({"provider": name, "status": "active", "models": models})
        return reply({"data": found})

    def _model(self, session: Session, declared: dict[str, Any], row: Row) -> dict[str, Any]:
        tenant = str(session.tenant["id"])
        credentials = self.decrypted(tenant, declared, row["encrypted_config"])
        data = {"provider": "ollama", "model_type": row["model_type"], "model": row["model_name"],
                "credentials": credentials}  # fmt: skip
        schema = self._schema(self.plugins.daemon(session), data)
        enabled = self.is_enabled(tenant, row)
        return {
            **schema,
            "model_type": row["model_type"],
            "status": "active" if enabled else "disabled",
            "load_balancing_enabled": False,
        }

    def _schema(self, daemon: Daemon, data: dict[str, Any]) -> dict[str, Any]:
        """What the plugin says of a model; kept for an hour."""
        text = json.dumps([daemon.tenant, data], sort_keys=True)
        name = f"plugin_model_schema:{hashlib.sha256(text.encode()).hexdigest()}"
        kept = self.state.redis.get(name)
        if kept:
            cached: dict[str, Any] = json.loads(kept)
            return cached
        try:
            (found,) = list(daemon.dispatch("model/schema", data))
        except PluginError as error:
            raise HTTPError(internal()) from error
        schema: dict[str, Any] = found["model_schema"]
        self.state.redis.setex(name, SCHEMA_CACHE, json.dumps(schema))
        return schema

    # Credentials.

    def validate(self, request: Request, session: Session, provider: str) -> Answer:
        """Try values; what the plugin says against them is an answer of status 200."""
        provider, declared = self._known(session, provider)
        model, model_type, payload = _model_of(request.json())
        values = _checked(declared, model_type, payload.get("credentials"))
        try:
            self._ask_plugin(session, model, model_type, values)
        except PluginError as error:
            return reply({"result": "error", "error": error.message})
        return reply({"result": "success"})

    def create(self, request: Request, session: Session, provider: str) -> Answer:
        """Store another record, after the plugin has tried it. The first one becomes active."""
        provider, declared = self._known(session, provider)
        model, model_type, payload = _model_of(request.json())
        there = self._records(session, provider, model, model_type)
        name = _name(payload, there, model)
        values = _checked(declared, model_type, payload.get("credentials"))
        self._tried(session, model, model_type, values)
        record = str(uuid.uuid4())
        config = self._encrypted(session, declared, values)
        self.state.insert(
            "provider_model_credentials", id=record, tenant_id=session.tenant["id"],
            provider_name=provider, model_name=model, model_type=model_type, credential_name=name,
            encrypted_config=as_json(config),
        )  # fmt: skip
        if not self._active(session, provider, model, model_type):
            self.state.insert(
                "provider_models", id=str(uuid.uuid4()), tenant_id=session.tenant["id"],
                provider_name=provider, model_name=model, model_type=model_type,
                credential_id=record, encrypted_config=as_json(config),
            )  # fmt: skip
        return reply({"result": "success"}, 201)

    def update(self, request: Request, session: Session, provider: str) -> Answer:
        """Replace a record's values, after the plugin has tried them."""
        provider, declared = self._known(session, provider)
        model, model_type, payload = _model_of(request.json())
        record = self._record(session, provider, model, model_type, payload.get("credential_id"))
        values = dict(payload.get("credentials") or {})
        before = self.decrypted(str(session.tenant["id"]), declared, record["encrypted_config"])
        values = {k: before.get(k) if v == HIDDEN else v for k, v in values.items()}
        values = _checked(declared, model_type, values)
        self._tried(session, model, model_type, values)
        config = as_json(self._encrypted(session, declared, values))
        self.state.rows(
            "UPDATE provider_model_credentials SET encrypted_config = %s, credential_name = %s"
            " WHERE id = %s",
            config, payload.get("name") or record["credential_name"], record["id"],
        )  # fmt: skip
        self.state.rows(
            "UPDATE provider_models SET encrypted_config = %s WHERE credential_id = %s",
            config, record["id"],
        )  # fmt: skip
        return reply({"result": "success"})

    def get_credentials(self, request: Request, session: Session, provider: str) -> Answer:
        """What is stored for a model, secrets masked."""
        provider, declared = self._known(session, provider)
        model, model_type, _ = _model_of(dict(request.query))
        records = self._records(session, provider, model, model_type)
        active = self._active(session, provider, model, model_type)
        shown = request.query.get("credential_id") or (active and active["credential_id"])
        current = next((r for r in records if str(r["id"]) == str(shown)), None)
        clear: dict[str, Any] = {}
        if current or active:
            stored = (current or active or {})["encrypted_config"]
            clear = self.decrypted(str(session.tenant["id"]), declared, stored)
        return reply(
            {
                "credentials": _masked(declared, clear),
                "current_credential_id": str(current["id"]) if current else None,
                "current_credential_name": current["credential_name"] if current else None,
                "load_balancing": {"enabled": False, "configs": []},
                "available_credentials": [
                    {"credential_id": str(r["id"]), "credential_name": r["credential_name"]}
                    for r in reversed(records)  # the newest first
                ],
            }
        )

    def delete_credential(self, request: Request, session: Session, provider: str) -> Answer:
        """Forget a record. The model goes on with the values of the active one."""
        provider = full_name(provider)
        model, model_type, payload = _model_of(request.json())
        record = self._record(session, provider, model, model_type, payload.get("credential_id"))
        self.state.rows("DELETE FROM provider_model_credentials WHERE id = %s", record["id"])
        self.state.rows(
            "UPDATE provider_models SET credential_id = NULL WHERE credential_id = %s", record["id"]
        )
        return Answer(204)

    def switch(self, request: Request, session: Session, provider: str) -> Answer:
        """Make another record the active one."""
        provider = full_name(provider)
        model, model_type, payload = _model_of(request.json())
        self._switch(session, provider, model, model_type, payload.get("credential_id"))
        return reply({"result": "success"})

    def _switch(
        self, session: Session, provider: str, model: str, model_type: str, credential: Any
    ) -> None:
        record = self._record(session, provider, model, model_type, credential)
        active = self._active(session, provider, model, model_type)
        if active and str(active["credential_id"]) == str(record["id"]):
            raise invalid("Can't add same credential")
        if active:
            self.state.rows(
                "UPDATE provider_models SET credential_id = %s, encrypted_config = %s"
                " WHERE id = %s",
                record["id"], as_json(record["encrypted_config"]), active["id"],
            )  # fmt: skip
            return
        self.state.insert(
            "provider_models", id=str(uuid.uuid4()), tenant_id=session.tenant["id"],
            provider_name=provider, model_name=model, model_type=model_type,
            credential_id=record["id"], encrypted_config=as_json(record["encrypted_config"]),
        )  # fmt: skip

    def post_model(self, request: Request, session: Session, provider: str) -> Answer:
        """Switch, or configure load balancing. It never makes a model, and says success."""
        provider = full_name(provider)
        model, model_type, payload = _model_of(request.json())
        if payload.get("config_from") == "custom-model":
            if not payload.get("credential_id"):
                raise invalid("credential_id is required when configuring a custom-model")
            self._switch(session, provider, model, model_type, payload["credential_id"])
        return reply({"result": "success"})

    def delete_model(self, request: Request, session: Session, provider: str) -> Answer:
        """Forget a model with all its records."""
        provider = full_name(provider)
        model, model_type, _ = _model_of(request.json())
        for table in ("provider_models", "provider_model_credentials"):
            self.state.rows(
                f"DELETE FROM {table} WHERE tenant_id = %s AND provider_name = %s"  # noqa: S608
                " AND model_name = %s AND model_type = %s",
                session.tenant["id"], provider, model, model_type,
            )  # fmt: skip
        return Answer(204)

    def enable(self, request: Request, session: Session, provider: str) -> Answer:
        """Let a model be used."""
        return self._set_enabled(request, session, provider, enabled=True)

    def disable(self, request: Request, session: Session, provider: str) -> Answer:
        """Let a model not be used."""
        return self._set_enabled(request, session, provider, enabled=False)

    def _set_enabled(
        self, request: Request, session: Session, provider: str, *, enabled: bool
    ) -> Answer:
        model, model_type, _ = _model_of(request.json())
        self.state.rows(
            "INSERT INTO provider_model_settings VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (tenant_id, provider_name, model_name, model_type)"
            " DO UPDATE SET enabled = EXCLUDED.enabled",
            session.tenant["id"], full_name(provider), model, model_type, enabled,
        )  # fmt: skip
        return reply({"result": "success"})

    def is_enabled(self, tenant: str, row: Row) -> bool:
        """Whether a model may be used."""
        found = self.state.row(
            "SELECT enabled FROM provider_model_settings WHERE tenant_id = %s"
            " AND provider_name = %s AND model_name = %s AND model_type = %s",
            tenant, row["provider_name"], row["model_name"], row["model_type"],
        )  # fmt: skip
        return found is None or bool(found["enabled"])

    # The default model.

    def get_default(self, request: Request, session: Session) -> Answer:
        """The default of a type; it does not ask the daemon."""
        row = self.state.row(
            f"SELECT provider_name, {self.model_column} AS model FROM tenant_default_models"  # noqa: S608
            " WHERE tenant_id = %s AND model_type = %s",
            session.tenant["id"], request.query.get("model_type", ""),
        )  # fmt: skip
        if not row:
            return reply({"data": None})
        return reply(
            {
                "data": {
                    "model": row["model"],
                    "model_type": request.query["model_type"],
                    "provider": {"provider": row["provider_name"], "label": {"en_US": "Ollama"}},
                }
            }
        )

    def set_default(self, request: Request, session: Session) -> Answer:
        """Set defaults; the model must be there."""
        for setting in request.json().get("model_settings", []):
            provider, _ = self._known(session, str(setting.get("provider")))
            model, model_type, _ = _model_of(setting)
            if not self._active(session, provider, model, model_type):
                raise invalid(f"Model {model} does not exist.")
            self.state.rows(
                "INSERT INTO tenant_default_models"  # noqa: S608
                f" (tenant_id, provider_name, {self.model_column}, model_type)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (tenant_id, model_type) DO UPDATE SET"
                " provider_name = EXCLUDED.provider_name,"
                f" {self.model_column} = EXCLUDED.{self.model_column}",
                session.tenant["id"], provider, model, model_type,
            )  # fmt: skip
        return reply({"result": "success"})

    # What is stored.

    def _known(self, session: Session, provider: str) -> tuple[str, dict[str, Any]]:
        provider = full_name(provider)
        return provider, self._declaration(session, provider)

    def _records(self, session: Session, provider: str, model: str, model_type: str) -> list[Row]:
        return self.state.rows(
            "SELECT * FROM provider_model_credentials WHERE tenant_id = %s AND provider_name = %s"
            " AND model_name = %s AND model_type = %s ORDER BY created_at",
            session.tenant["id"], provider, model, model_type,
        )  # fmt: skip

    def _record(
        self, session: Session, provider: str, model: str, model_type: str, credential: Any
    ) -> Row:
        for record in self._records(session, provider, model, model_type):
            if str(record["id"]) == str(credential):
                return record
        raise invalid("Credential record not found.")

    def _active(self, session: Session, provider: str, model: str, model_type: str) -> Row | None:
        return self.stored(str(session.tenant["id"]), provider, model, model_type)

    def stored(self, tenant: str, provider: str, model: str, model_type: str) -> Row | None:
        """A model's row, with the values that chats use."""
        return self.state.row(
            "SELECT * FROM provider_models WHERE tenant_id = %s AND provider_name = %s"
            " AND model_name = %s AND model_type = %s",
            tenant, provider, model, model_type,
        )  # fmt: skip

    def _encrypted(
        self, session: Session, declared: dict[str, Any], values: dict[str, str]
    ) -> dict[str, str]:
        secrets = _secrets(declared)
        tenant = str(session.tenant["id"])
        return {k: self.state.encrypt(tenant, v) if k in secrets else v for k, v in values.items()}

    def decrypted(
        self, tenant: str, declared: dict[str, Any], stored: dict[str, str]
    ) -> dict[str, str]:
        """Values in clear. The private key is needed even where nothing is secret.

        Raises:
            WorkerDiedError: it is lost.
        """
        try:
            key = self.state.decryptor(tenant)
        except PrivkeyNotFoundError as error:
            raise WorkerDiedError from error
        secrets = _secrets(declared)
        return {k: self.state.decrypt(key, v) if k in secrets else v for k, v in stored.items()}

    def _tried(self, session: Session, model: str, model_type: str, values: dict[str, str]) -> None:
        try:
            self._ask_plugin(session, model, model_type, values)
        except PluginError as error:
            raise invalid(error.message) from error

    def _ask_plugin(
        self, session: Session, model: str, model_type: str, values: dict[str, str]
    ) -> None:
        """Have the plugin call the model.

        Raises:
            PluginError: the plugin says no.
            HTTPError: 500, while its runtime is not up.
        """
        data = {"provider": "ollama", "model_type": model_type, "model": model,
                "credentials": values}  # fmt: skip
        daemon: Daemon = self.plugins.daemon(session)
        try:
            list(daemon.dispatch("model/validate_model_credentials", data))
        except PluginError as error:
            if error.kind == "CredentialsValidateFailedError":
                raise
            raise HTTPError(internal()) from error


def _model_of(payload: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    model, model_type = payload.get("model"), payload.get("model_type")
    if not isinstance(model, str) or not model:
        raise invalid("model: Field required")
    if model_type not in TYPES:
        raise invalid(f"model_type: Input should be one of {', '.join(TYPES)}")
    return model, str(model_type), payload


def _name(payload: dict[str, Any], there: list[Row], model: str) -> str:
    name = payload.get("name")
    if not name:
        numbers = [
            int(found[1])
            for row in there
            if (found := re.fullmatch(r"API KEY (\d+)", row["credential_name"]))
        ]
        return f"API KEY {max(numbers, default=0) + 1}"
    if len(name) > 30:
        raise invalid("name: String should have at most 30 characters")
    if name in [row["credential_name"] for row in there]:
        raise invalid(f"Model credential with name '{name}' already exists for {model}.")
    return str(name)


def _checked(declared: dict[str, Any], model_type: str, values: Any) -> dict[str, str]:
    """The values that the provider declares. Anything but text ends in a 500 without a reason."""
    if not isinstance(values, dict):
        raise invalid("credentials: Input should be a valid dictionary")
    checked = {}
    for item in declared["model_credential_schema"]["credential_form_schemas"]:
        if item.get("show_on", model_type) != model_type:
            continue
        variable = item["variable"]
        value = values.get(variable)
        if value is None or value == "":
            if item["required"]:
                raise invalid(f"Variable {variable} is required")
            if "default" not in item:
                continue
            value = item["default"]
        if not isinstance(value, str):
            raise HTTPError(internal())
        if "options" in item and value not in item["options"]:
            raise invalid(f"Variable {variable} is not in options")
        checked[variable] = value
    return checked


def _secrets(declared: dict[str, Any]) -> set[str]:
    schemas = declared["model_credential_schema"]["credential_form_schemas"]
    return {item["variable"] for item in schemas if item["type"] == "secret-input"}


def _masked(declared: dict[str, Any], values: dict[str, str]) -> dict[str, str]:
    secrets = _secrets(declared)
    return {k: _mask(v) if k in secrets else v for k, v in values.items()}


def _mask(text: str) -> str:
    return text[:6] + "*" * 12 + text[-2:] if len(text) > 8 else "*" * 20
