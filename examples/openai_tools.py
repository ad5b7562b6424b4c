"""A tool with the package `openai`: the model asks for it, it is run, the model goes on."""

import json
import os
import sys

import openai

client = openai.OpenAI(base_url=f"{os.environ['LLM_URL']}/v1", api_key=os.environ["LLM_KEY"])
model = os.environ["LLM_MODEL"]
tool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
messages = [{"role": "user", "content": "How is the weather in Paris? Use get_weather."}]

message = (
    client.chat.completions.create(model=model, messages=messages, tools=[tool]).choices[0].message
)
if not message.tool_calls:
    sys.exit(f"the model called no tool, it said: {message.content}")
messages.append(message)
for call in message.tool_calls:
    city = json.loads(call.function.arguments)["city"]
    print(f"{call.function.name}({city!r})")
    weather = json.dumps({"city": city, "weather": "sunny", "celsius": 21})
    messages.append({"role": "tool", "tool_call_id": call.id, "content": weather})
answer = client.chat.completions.create(model=model, messages=messages, tools=[tool])
print(answer.choices[0].message.content)
