"""A server that does nothing, and answers at once as a model's would.

What it answers depends on the path alone, so that it reads no body: a whole answer, a streamed one
that is there at once, and one whose parts come a second apart.
"""

import json

from lab.bench_gateway.proxies import MODEL, folder_of

PORT = 19000
WHOLE, STREAMED, SLOW = "/v1/chat/completions", "/v1/completions", "/api/chat"
TOKENS = 20  # of a streamed answer, a part each; nginx takes no longer text
LASTS = 60  # seconds, of a slow one

_CONFIG = """load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user www-data;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/json;
    client_max_body_size 0;
    init_by_lua_block {{ jit.off() }}
    server {{
        listen 127.0.0.1:{port};
        location = /api/version {{ return 200 '{{"version":"0.32.7"}}'; }}
        location = /api/tags {{ return 200 '{tags}'; }}
        location = /v1/models {{ return 200 '{list}'; }}
        location = /api/ps {{ return 200 '{tags}'; }}
        location = {whole_path} {{ return 200 '{whole}'; }}
        location = {streamed_path} {{
            default_type text/event-stream;
            return 200 '{streamed}';
        }}
        location = {slow_path} {{
            default_type application/x-ndjson;
            content_by_lua_block {{
                for _ = 1, {lasts} do
                    ngx.say('{part}')
                    ngx.flush()
                    ngx.sleep(1)
                end
                ngx.say('{last}')
            }}
        }}
    }}
}}
"""


def config() -> str:
    """Its nginx.conf."""
    usage = {"prompt_tokens": 100, "completion_tokens": TOKENS, "total_tokens": 100 + TOKENS}
    said = {"role": "assistant", "content": "y" * 800}
    whole = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage,
    }  # fmt: skip
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL}
    parts = [
        *[{**head, "choices": [{"index": 0, "text": " word", "finish_reason": None}]}] * TOKENS,
        {**head, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": usage},
    ]
    slow = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z"}
    return _CONFIG.format(
        folder=folder_of(PORT), port=PORT, lasts=LASTS,
        tags=json.dumps({"models": [{"name": MODEL, "model": MODEL, "digest": "0" * 64}]}),
        list=json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}),
        whole_path=WHOLE, whole=json.dumps(whole),
        streamed_path=STREAMED,
        streamed="".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n",
        slow_path=SLOW,
        part=json.dumps({**slow, "message": {"role": "assistant", "content": "y"}, "done": False}),
        last=json.dumps({
            **slow, "message": {"role": "assistant", "content": ""}, "done": True,
            "done_reason": "stop", "prompt_eval_count": 100, "eval_count": LASTS,
        }),
    )  # fmt: skip
