"""A chat with the package `openai`: whole, then as a stream that ends with the tokens it took."""

import os

import openai

client = openai.OpenAI(base_url=f"{os.environ['LLM_URL']}/v1", api_key=os.environ["LLM_KEY"])
model = os.environ["LLM_MODEL"]
question = {"role": "user", "content": "What is the capital of France?"}

answer = client.chat.completions.create(model=model, messages=[question], temperature=0)
print(answer.choices[0].message.content)
print(f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens")

stream = client.chat.completions.create(
    model=model,
    messages=[question],
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
pieces = 0
usage = None
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
        pieces += 1
    usage = chunk.usage or usage
print(f"\n{pieces} pieces, {usage.prompt_tokens} + {usage.completion_tokens} tokens")
