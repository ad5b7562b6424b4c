"""A chat with the package `anthropic`: whole, then as a stream."""

import os

import anthropic

# Without /v1: this package adds it.
client = anthropic.Anthropic(base_url=os.environ["LLM_URL"], api_key=os.environ["LLM_KEY"])
request = {
    "model": os.environ["LLM_MODEL"],
    "max_tokens": 1000,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}

answer = client.messages.create(**request)
print("".join(part.text for part in answer.content if part.type == "text"))
print(f"{answer.usage.input_tokens} + {answer.usage.output_tokens} tokens")

pieces = 0
with client.messages.stream(**request) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
        pieces += 1
    usage = stream.get_final_message().usage
print(f"\n{pieces} pieces, {usage.input_tokens} + {usage.output_tokens} tokens")
