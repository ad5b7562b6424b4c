"""Models as Dify knows them: the plugin's records of where each is, and which is the default."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from dify_console import LONGEST_ANSWER, PROVIDER, WORKSPACE, Dify, DifyError, fingerprint

CREDENTIAL = "llm-fleet"
_PROVIDER_PATH = f"{WORKSPACE}/model-providers/{PROVIDER}"


class Models:
    """The declared models in one Dify. Every `*problem` looks; every `do_*` changes."""

    def __init__(self, dify: Dify) -> None:
        self.dify, self.config, self.memory = dify, dify.config, dify.memory

    def wanted_credentials(self, model: dict[str, Any]) -> dict[str, str]:
        """Text only: numbers and booleans are answered 500."""
        wanted = {
            "base_url": self.config["ollama"]["url"],
            "mode": "chat",
            "context_size": str(model["context_size"]),
            "max_tokens": str(model["max_tokens"]),
            "vision_support": str(model["vision"]).lower(),
            "function_call_support": str(model["tools"]).lower(),
        }
        key = self.config["ollama"].get("key")
        return wanted | ({"api_key": key} if key else {})

    def credential(self, model: dict[str, Any], identifier: str | None = None) -> Any:
        """The record of a model: the active one, or the one called `identifier`."""
        query = {"model": model["name"], "model_type": "llm"}
        query |= {"credential_id": identifier} if identifier else {}
        return self.dify.call(
            "GET", f"{_PROVIDER_PATH}/models/credentials?{urlencode(query)}"
        ).value

    def problem(self, model: dict[str, Any]) -> str | None:
        """Why a model is not registered as declared."""
        record = self.credential(model)
        if not record["current_credential_id"]:
            return f"model {model['name']}: not registered"
        wanted = self.wanted_credentials(model)
        # A key is shown masked, so what was last sent for this record is remembered.
        sent = (self.memory.get("keys_sent") or {}).get(record["current_credential_id"])
        if sent != fingerprint(wanted.get("api_key")):
            return f"model {model['name']}: its key may be another"
        differing = sorted(
            name
            for name, value in wanted.items()
            if name != "api_key" and record["credentials"].get(name) != value
        )
        if differing:
            return f"model {model['name']}: {', '.join(differing)}"
        # Switched off on Dify's pages, its record is as it was and every chat fails.
        off = self._status(model) == "disabled"
        return f"model {model['name']}: disabled" if off else None

    def _status(self, model: dict[str, Any]) -> Any:
        listed = self.dify.call("GET", f"{_PROVIDER_PATH}/models").value["data"]
        found = (item["status"] for item in listed if item["model"] == model["name"])
        return next(found, None)

    def do_model(self, model: dict[str, Any]) -> None:
        """Register a model, or change its one record; a second record would shadow nothing."""
        record = self.credential(model)
        named = {
            item["credential_name"]: item["credential_id"]
            for item in record["available_credentials"]
        }
        target = named.get(CREDENTIAL) or record["current_credential_id"]
        target = target or next(iter(named.values()), None)
        body = {
            "model": model["name"],
            "model_type": "llm",
            "credentials": self.wanted_credentials(model),
        }
        path = f"{_PROVIDER_PATH}/models/credentials"
        if target:
            self._validated("PUT", path, {**body, "credential_id": target})
        else:
            self._validated("POST", path, {**body, "name": CREDENTIAL})
        now = self.credential(model)
        if target and now["current_credential_id"] != target:
            switch = {"model": model["name"], "model_type": "llm", "credential_id": target}
            self.dify.call("POST", f"{path}/switch", switch)
            now = self.credential(model)
        if self._status(model) == "disabled":
            which = {"model": model["name"], "model_type": "llm"}
            self.dify.call("PATCH", f"{_PROVIDER_PATH}/models/enable", which)
        sent = dict(self.memory.get("keys_sent") or {})
        sent[now["current_credential_id"]] = fingerprint(body["credentials"].get("api_key"))
        self.memory.keep("keys_sent", sent)

    def _validated(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Saving asks the model a question: it may be loaded by it, and its error is the reason."""
        try:
            self.dify.call(method, path, body, timeout=LONGEST_ANSWER)
        except DifyError as error:
            raise DifyError(
                f"model {body['model']} at {body['credentials']['base_url']}: {error}"
            ) from None

    def default_problem(self) -> str | None:
        """Why the declared default model is not the default."""
        value = self.dify.call("GET", f"{WORKSPACE}/default-model?model_type=llm").value["data"]
        now = value["model"] if value else None
        provider = (value or {}).get("provider") or {}
        wanted = self.config["models"][0]["name"]
        if now == wanted and provider.get("provider", PROVIDER) == PROVIDER:
            return None
        return f"default model: {now}, declared is {wanted}"

    def do_default(self) -> None:
        """Have the first declared model as the default."""
        setting = {"model_type": "llm", "provider": PROVIDER,
                   "model": self.config["models"][0]["name"]}  # fmt: skip
        self.dify.call("POST", f"{WORKSPACE}/default-model", {"model_settings": [setting]})
