"""Stands for Ollama behind the gateway where the test must see, or choose, what a backend does.

    python3 backend.py ADDRESS PORT LOG

Writes each request (method, path, headers, body) as a line of JSON to LOG. Answers as the public
clients expect: OpenAI's responses and tool calls, Anthropic's messages. `/v1/completions` answers
the prompt `sleep N` after N seconds; `/api/generate` streams N parts in N fifths of a second to the
prompt `drip N`.
"""

import http.server
import json
import sys
import time

ADDRESS, PORT, LOG = sys.argv[1:]

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "gpt-oss:20b",
    "content": [{"type": "text", "text": "Paris"}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-oss:20b",
    "status": "completed", "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
    "output": [{
        "type": "message", "id": "m1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Paris", "annotations": []}],
    }],
}  # fmt: skip
TOOL_CALL = {
    "id": "chat_1", "object": "chat.completion", "created": 1, "model": "gpt-oss:20b",
    "choices": [{
        "index": 0, "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": "", "tool_calls": [{
            "id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
        }]},
    }],
}  # fmt: skip
EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Paris"},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 1},
    },
    {"type": "message_stop"},
]


TAGS = {"models": [{"name": "gpt-oss:20b", "model": "gpt-oss:20b", "details": {}}]}


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.request_version == "HTTP/1.0":  # the gateway has a look
            self._answer(TAGS)
            return
        self._record("")
        self._answer({"object": "list", "data": [], "models": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self._record(body)
        request = json.loads(body or "{}")
        if self.path.startswith("/v1/messages"):
            if request.get("stream"):
                self._stream()
            else:
                self._answer(MESSAGE)
        elif self.path.startswith("/v1/responses"):
            self._answer(RESPONSE)
        elif self.path.startswith("/v1/completions"):
            time.sleep(float(request["prompt"].split()[1]))
            self._answer({"ok": True})
        elif self.path.startswith("/api/generate"):
            self._drip(int(request["prompt"].split()[1]))
        else:
            self._answer(TOOL_CALL)

    def _drip(self, parts):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(parts):
            line = json.dumps({"response": str(number), "done": number == parts - 1}) + "\n"
            self.wfile.write(f"{len(line):x}\r\n{line}\r\n".encode())
            self.wfile.flush()
            time.sleep(0.2)
        self.wfile.write(b"0\r\n\r\n")

    def _record(self, body):
        line = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body,
        }
        with open(LOG, "a") as log:  # noqa: PTH123 - a program on a host
            log.write(json.dumps(line) + "\n")

    def _answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in EVENTS:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.02)
        self.close_connection = True

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((ADDRESS, int(PORT)), Backend).serve_forever()
