"""An answer that is JSON of a given schema, with the package `openai`."""

import json
import os

import openai

client = openai.OpenAI(base_url=f"{os.environ['LLM_URL']}/v1", api_key=os.environ["LLM_KEY"])
schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "is_capital": {"type": "boolean"}},
    "required": ["city", "is_capital"],
    "additionalProperties": False,
}

answer = client.chat.completions.create(
    model=os.environ["LLM_MODEL"],
    messages=[{"role": "user", "content": "What is the capital of France? Answer in JSON."}],
    response_format={
        "type": "json_schema",
        "json_schema": {"name": "place", "strict": True, "schema": schema},
    },
    # The schema holds once a model has ended its thinking; so let it answer at once.
    reasoning_effort="none",
    max_completion_tokens=200,
    temperature=0,
)
print(json.loads(answer.choices[0].message.content))
