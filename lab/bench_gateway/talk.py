"""Eight conversations of six turns at once, each with a long text at its beginning.

Runs on a lab host: `python3 talk.py FILE NAME`; FILE has port, key and model, NAME makes the texts
others than those of another run. It prints a list: of each turn the
seconds to its first token, and the milliseconds in which the server read its prompt.
"""

import contextlib
import http.client
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

CONVERSATIONS, TURNS = 8, 6
FIRST, LATER = 450, 20  # words: some 750 tokens, and 35
ANSWER = 12  # tokens
_SYLLABLES = ["ba", "ko", "li", "ne", "su", "ta", "mo", "ri", "ve", "du", "pa", "go"]


def main() -> None:
    """Have all of them at once."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    turns: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=_talk, args=(asked, f"{sys.argv[2]}-{number}", turns))
        for number in range(CONVERSATIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(turns) != CONVERSATIONS * TURNS:
        sys.exit(f"{len(turns)} of {CONVERSATIONS * TURNS} turns were answered")
    json.dump(turns, sys.stdout)


def _talk(asked: dict[str, Any], name: str, turns: list[dict[str, Any]]) -> None:
    words = random.Random(name)  # noqa: S311 - the same at each run
    messages: list[dict[str, str]] = []
    for turn in range(1, TURNS + 1):
        messages.append({"role": "user", "content": _text(words, FIRST if turn == 1 else LATER)})
        first, answer, last = _ask(asked, messages)
        messages.append({"role": "assistant", "content": answer})
        read = last["prompt_eval_duration"] / 1e6
        turns.append({"turn": turn, "first": first, "read": read})


def _ask(
    asked: dict[str, Any], messages: list[dict[str, str]]
) -> tuple[float, str, dict[str, Any]]:
    """Seconds to the first part of the answer, the answer, and its last part."""
    body = {"model": asked["model"], "messages": messages, "options": {"num_predict": ANSWER}}
    headers = {"Authorization": f"Bearer {asked['key']}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", asked["port"], timeout=600)
    with contextlib.closing(connection):
        start = time.monotonic()
        connection.request("POST", "/api/chat", json.dumps(body), headers)
        answer = connection.getresponse()
        parts = [json.loads(answer.readline())]
        first = time.monotonic() - start
        if "error" in parts[0]:
            raise ValueError(parts[0]["error"])
        parts += [json.loads(line) for line in answer]
    return first, "".join(part["message"].get("content", "") for part in parts), parts[-1]


def _text(words: random.Random, count: int) -> str:
    return " ".join(
        "".join(words.choice(_SYLLABLES) for _ in range(words.randint(1, 3))) for _ in range(count)
    )


if __name__ == "__main__":
    main()
