"""The service API: answers of apps, in the API's own process or in the worker."""

import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .apps import GRAPHS, newest
from .daemon_client import Daemon, PluginError
from .models import Models, full_name
from .state import Row, State
from .web import EVENTS, Answer, HTTPError, Request, Router, event, fail, invalid, reply

QUEUE = "workflow_based_app_execution"
_FAILED = "Run failed: "
TITLE = {"role": "user", "content": "Write a title of a few words for this conversation: "}


class RunFailedError(Exception):
    """What an answer ends with; the code is that of its event."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        """Keep them."""
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class Question:
    """One request for an answer, as it travels to the worker."""

    app: str
    query: str
    inputs: dict[str, Any]
    user: str
    conversation: str
    message: str
    task: str
    is_new: bool
    wants_title: bool


class Chat:
    """The routes below /v1, and what runs behind them."""

    def __init__(self, state: State, router: Router, models: Models) -> None:
        """Add the routes."""
        self.state = state
        self.models = models
        router.add("GET", "/v1/info", self.info)
        router.add("GET", "/v1/parameters", self.parameters)
        router.add("POST", "/v1/chat-messages", self.chat)
        router.add("POST", "/v1/workflows/run", self.chat)

    # Who asks.

    def _app(self, request: Request) -> Row:
        if not request.bearer:
            message = "Authorization header must be provided and start with 'Bearer'"
            raise fail(401, "unauthorized", message)
        token = self.state.row("SELECT * FROM api_tokens WHERE token = %s", request.bearer)
        if not token:
            raise fail(401, "unauthorized", "Access token is invalid")
        self.state.rows("UPDATE api_tokens SET last_used_at = now() WHERE id = %s", token["id"])
        app = self.state.row("SELECT * FROM apps WHERE id = %s", token["app_id"])
        if not app:
            raise fail(403, "forbidden", "The app no longer exists.")
        if not app["enable_api"]:
            raise fail(403, "forbidden", "The app's API service has been disabled.")
        return app

    def info(self, request: Request) -> Answer:
        """What the app is called: proves key and app, and nothing of the model."""
        app = self._app(request)
        owner = self.state.row("SELECT name FROM accounts ORDER BY created_at LIMIT 1")
        return reply(
            {
                "name": app["name"],
                "description": app["description"],
                "tags": [],
                "mode": app["mode"],
                "author_name": owner["name"] if owner else None,
            }
        )

    def parameters(self, request: Request) -> Answer:
        """What a client of the app may send."""
        config = self._app(request)["model_config"] or {}
        return reply(
            {
                "opening_statement": config.get("opening_statement", ""),
                "user_input_form": config.get("user_input_form", []),
                "suggested_questions": config.get("suggested_questions", []),
            }
        )

    def chat(self, request: Request) -> Answer:
        """Answer, in one piece or in events."""
        app = self._app(request)
        if (request.path == "/v1/workflows/run") != (app["mode"] == "workflow"):
            code = "not_workflow_app" if app["mode"] != "workflow" else "not_chat_app"
            raise fail(400, code, "Please check if your app mode matches the right API route.")
        payload = request.json()
        question = self._question(app, payload)
        streaming = payload.get("response_mode", "blocking") == "streaming"
        if app["mode"] in GRAPHS and streaming:
            return Answer(200, self._in_worker(question), EVENTS)
        if streaming:
            self._need_enabled(app)
            return Answer(200, _as_events(self.run(question)), EVENTS)
        return self._blocking(app, question)

    def _need_enabled(self, app: Row) -> None:
        """Refuse a model that is switched off before there is a stream."""
        model = app["model_config"]["model"]
        provider = full_name(model["provider"])
        row = self.models.stored(str(app["tenant_id"]), provider, model["name"], "llm")
        if row and not self.models.is_enabled(str(app["tenant_id"]), row):
            raise invalid(f"Model {model['name']} is disabled.")

    def _question(self, app: Row, payload: dict[str, Any]) -> Question:
        if not isinstance(payload.get("inputs"), dict):
            raise invalid("inputs: Field required")
        if not payload.get("user"):
            raise invalid("user: Field required")
        query = payload.get("query", "")
        if app["mode"] != "workflow" and not (isinstance(query, str) and query):
            raise invalid("query: Field required")
        given = payload.get("conversation_id") or ""
        if given and not self.state.row("SELECT id FROM conversations WHERE id::text = %s", given):
            raise fail(404, "not_found", "Conversation Not Exists.")
        return Question(
            str(app["id"]), query, payload["inputs"], str(payload["user"]),
            given or str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4()), not given,
            bool(payload.get("auto_generate_name", True)),
        )  # fmt: skip

    def _blocking(self, app: Row, question: Question) -> Answer:
        answer, last = "", {}
        try:
            for item in self.run(question, stream=False):
                answer += item.get("answer", "")
                last = item
        except RunFailedError as error:
            raise fail(error.status, error.code, error.message) from error
        if app["mode"] == "workflow":
            return reply(last)
        return reply({**last, "event": "message", "mode": app["mode"], "answer": answer})

    # The worker.

    def _in_worker(self, question: Question) -> Iterator[bytes]:
        """Events from the worker: a ping, and silence while there is none."""
        listener = self.state.redis.pubsub()
        listener.subscribe(f"app:events:{question.task}")
        try:
            task = json.dumps({"task": "run", "question": vars(question)})
            self.state.broker.lpush(QUEUE, task)
            yield b"event: ping\n\n"
            end = time.monotonic() + self.state.config.number("APP_MAX_EXECUTION_TIME", 1200)
            while time.monotonic() < end:
                message = listener.get_message(ignore_subscribe_messages=True, timeout=1)
                if not message:
                    continue
                if message["data"] == b"end":
                    return
                yield message["data"]
        finally:
            listener.close()

    def work(self, question: Question) -> None:
        """Run a question and publish its events."""
        # A connection that the database has closed ends the task, and nobody is told.
        self.state.use_pooled()
        channel = f"app:events:{question.task}"
        for item in self._told(question):
            self.state.redis.publish(channel, event(item))
        self.state.redis.publish(channel, b"end")

    def _told(self, question: Question) -> Iterator[dict[str, Any]]:
        """The events of a streamed workflow; a failure is its end, and no event of its own."""
        try:
            yield from self.run(question)
        except RunFailedError as error:
            failed = {"status": "failed", "error": error.message.removeprefix(_FAILED)}
            head = {"task_id": question.task, "workflow_run_id": question.message}
            node = {"id": "llm", "node_type": "llm", **failed}
            yield {"event": "node_finished", **head, "data": node}
            yield {"event": "workflow_finished", **head, "data": {"id": question.message, **failed}}

    # Answers.

    def run(self, question: Question, *, stream: bool = True) -> Iterator[dict[str, Any]]:
        """The events of an answer, the last one with the usage.

        Raises:
            RunFailedError: in place of the next event.
        """
        app = self.state.row("SELECT * FROM apps WHERE id = %s", question.app)
        assert app
        head = {
            "task_id": question.task,
            "id": question.message,
            "message_id": question.message,
            "conversation_id": question.conversation,
            "created_at": int(time.time()),
        }
        if question.is_new and app["mode"] != "workflow":
            self.state.insert(
                "conversations",
                id=question.conversation,
                app_id=question.app,
                name="New conversation",
            )
        answer, usage = "", dict[str, Any]()
        try:
            for text, used in self._texts(app, question, stream=stream):
                answer += text
                usage = used or usage
                if text and app["mode"] != "workflow":
                    yield {"event": "message", **head, "answer": text}
        finally:
            self._finish(app, question, answer)
        if app["mode"] in GRAPHS and stream:
            yield _workflow_result(question, answer, usage)
        if app["mode"] == "workflow" and not stream:
            yield _workflow_result(question, answer, usage)
        elif app["mode"] != "workflow":
            yield {"event": "message_end", **head, "metadata": {"usage": usage}}

    def _finish(self, app: Row, question: Question, answer: str) -> None:
        """Keep the message; a new conversation gets a title, by another call of the model."""
        if app["mode"] == "workflow":
            return
        self.state.insert(
            "messages", id=question.message, app_id=question.app,
            conversation_id=question.conversation, query=question.query, answer=answer,
        )  # fmt: skip
        if question.is_new and question.wants_title:
            threading.Thread(target=self._title, args=(app, question), daemon=True).start()

    def _title(self, app: Row, question: Question) -> None:
        message = {**TITLE, "content": TITLE["content"] + question.query}
        model = _model_in(app, self._graph(app))
        model["completion_params"] = {"temperature": 1, "num_predict": 500}
        try:
            pieces = list(self._invoke(app, model, [message], stream=False))
        except RunFailedError as error:
            print(f"title: {error}", flush=True)  # noqa: T201
            return
        name = "".join(text for text, _ in pieces).strip()[:100] or "New conversation"
        self.state.rows(
            "UPDATE conversations SET name = %s WHERE id = %s", name, question.conversation
        )

    def _texts(
        self, app: Row, question: Question, *, stream: bool
    ) -> Iterator[tuple[str, dict[str, Any] | None]]:
        if app["mode"] in GRAPHS:
            yield from self._walk(app, question, stream=stream)
            return
        config = app["model_config"]
        messages = []
        if config.get("pre_prompt"):
            messages.append({"role": "system", "content": config["pre_prompt"]})
        for row in self.state.rows(
            "SELECT query, answer FROM messages WHERE conversation_id = %s ORDER BY created_at",
            question.conversation,
        ):
            messages += [{"role": "user", "content": row["query"]},
                         {"role": "assistant", "content": row["answer"]}]  # fmt: skip
        messages.append({"role": "user", "content": question.query})
        yield from self._invoke(app, config["model"], messages, stream=stream)

    def _invoke(
        self, app: Row, model: dict[str, Any], messages: list[dict[str, Any]], *, stream: bool
    ) -> Iterator[tuple[str, dict[str, Any] | None]]:
        tenant, name = str(app["tenant_id"]), model["name"]
        provider = full_name(model["provider"])
        row = self.models.stored(tenant, provider, name, "llm")
        daemon = Daemon(self.state.config, tenant)
        try:
            listed = self.models.plugins.providers(daemon)
        except HTTPError as error:
            raise _as_failure(error) from error
        declared = next(
            (
                found["declaration"]
                for found in listed
                if f"{found['plugin_id']}/{found['provider']}" == provider
            ),
            None,
        )
        if declared is None:
            raise RunFailedError("invalid_param", f"Provider {provider} does not exist.")
        if row is None:
            message = f"Model {name} credentials is not initialized."
            raise RunFailedError("provider_not_initialize", message)
        if not self.models.is_enabled(tenant, row):
            raise RunFailedError("invalid_param", f"Model {name} is disabled.")
        data = {
            "provider": "ollama",
            "model_type": "llm",
            "model": name,
            "credentials": self.models.decrypted(tenant, declared, row["encrypted_config"]),
            "prompt_messages": messages,
            "model_parameters": model.get("completion_params") or {},
            "tools": [],
            "stop": [],
            "stream": stream,
        }
        try:
            for chunk in daemon.dispatch("llm/invoke", data):
                yield chunk["text"], chunk.get("usage")
        except PluginError as error:
            raise RunFailedError("completion_request_error", _explained(error)) from error
        except HTTPError as error:
            raise _as_failure(error) from error

    def _graph(self, app: Row) -> dict[str, Any]:
        if app["mode"] not in GRAPHS:
            return {}
        found = newest(self.state, str(app["id"]))
        if not found:
            raise RunFailedError("invalid_param", "Workflow not published")
        graph: dict[str, Any] = found["graph"]["graph"]
        return graph

    def _walk(
        self, app: Row, question: Question, *, stream: bool
    ) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Run the nodes from start on; models are asked with streams, answers are templates."""
        graph = self._graph(app)
        known = {"sys.query": question.query, "sys.user_id": question.user}
        node = next(n for n in graph["nodes"] if n["data"]["type"] == "start")
        known |= {f"{node['id']}.{name}": str(value) for name, value in question.inputs.items()}
        usage: dict[str, Any] | None = None
        while node:
            data = node["data"]
            if data["type"] == "llm":
                messages = [
                    {"role": m["role"], "content": _filled(m["text"], known)}
                    for m in data["prompt_template"]
                ]
                text = ""
                try:
                    for piece, used in self._invoke(app, data["model"], messages, stream=stream):
                        text += piece
                        usage = used or usage
                except RunFailedError as error:
                    raise RunFailedError("invalid_param", _FAILED + error.message) from error
                known[f"{node['id']}.text"] = text
            elif data["type"] == "answer":
                yield _filled(data["answer"], known), usage
            elif data["type"] == "end":
                for output in data.get("outputs", []):
                    yield known.get(".".join(output["value_selector"]), ""), usage
            elif data["type"] != "start":
                message = f"{_FAILED}no node type {data['type']}"
                raise RunFailedError("invalid_param", message)
            node = _after(graph, node["id"])


def _as_failure(error: HTTPError) -> RunFailedError:
    found = json.loads(error.answer.body)  # type: ignore[arg-type]
    return RunFailedError(found["code"], found["message"], error.answer.status)


def _explained(error: PluginError) -> str:
    if error.kind.startswith("PluginDaemon"):
        return f"[Ollama] Error: req_id: {uuid.uuid4().hex[:10]} {error.kind}: {error.message}"
    return error.message


def _filled(text: str, known: dict[str, str]) -> str:
    return re.sub(r"{{#([\w.-]+)#}}", lambda found: known.get(found[1], ""), text)


def _after(graph: dict[str, Any], node: str) -> dict[str, Any] | None:
    for edge in graph["edges"]:
        if edge["source"] == node:
            found: dict[str, Any] = next(n for n in graph["nodes"] if n["id"] == edge["target"])
            return found
    return None


def _model_in(app: Row, graph: dict[str, Any]) -> dict[str, Any]:
    if not graph:
        return dict(app["model_config"]["model"])
    for node in graph["nodes"]:
        if node["data"]["type"] == "llm":
            return dict(node["data"]["model"])
    raise RunFailedError("invalid_param", "no model in the graph")


def _workflow_result(question: Question, answer: str, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "event": "workflow_finished",
        "task_id": question.task,
        "workflow_run_id": question.message,
        "data": {
            "id": question.message,
            "status": "succeeded",
            "outputs": {"text": answer},
            "error": None,
            "total_tokens": usage.get("total_tokens", 0),
        },
    }


def _as_events(items: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Events; what goes wrong is one of them, inside an answer that said 200."""
    try:
        for item in items:
            yield event(item)
    except RunFailedError as error:
        failed = {"code": error.code, "message": str(error), "status": error.status}
        yield event({"event": "error", **failed})
