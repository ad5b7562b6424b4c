"""OpenAI's newer endpoint, `/v1/responses`, with the package `openai`: whole, then as a stream."""

import os

import openai

client = openai.OpenAI(base_url=f"{os.environ['LLM_URL']}/v1", api_key=os.environ["LLM_KEY"])
request = {
    "model": os.environ["LLM_MODEL"],
    "instructions": "Be brief.",
    "input": "What is the capital of France?",
    "temperature": 0,
}

answer = client.responses.create(**request)
print(answer.output_text)
print(f"{answer.usage.input_tokens} + {answer.usage.output_tokens} tokens")

pieces = 0
with client.responses.stream(**request) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
            pieces += 1
    usage = stream.get_final_response().usage
print(f"\n{pieces} pieces, {usage.input_tokens} + {usage.output_tokens} tokens")
