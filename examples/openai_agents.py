"""An agent with a tool, by OpenAI's Agents SDK, and each of its three kinds of model."""

import os
import sys

import openai
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.extensions.models.litellm_model import LitellmModel

set_tracing_disabled(True)  # it would be sent to OpenAI
url, key, model = (os.environ[name] for name in ("LLM_URL", "LLM_KEY", "LLM_MODEL"))
client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key)
asked = []


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city now."""
    asked.append(city)
    return f"It is sunny in {city}, 21 degrees Celsius."


for kind in (
    OpenAIChatCompletionsModel(model=model, openai_client=client),
    OpenAIResponsesModel(model=model, openai_client=client),
    LitellmModel(model=f"openai/{model}", base_url=f"{url}/v1", api_key=key),
):
    asked.clear()
    agent = Agent(name="Weather", instructions="Be brief.", model=kind, tools=[get_weather])
    result = Runner.run_sync(agent, "How is the weather in Paris? Use get_weather.")
    if not asked:
        sys.exit(f"{type(kind).__name__}: no tool was called, but said: {result.final_output}")
    print(f"{type(kind).__name__}: get_weather({asked[0]!r}), then: {result.final_output.strip()}")
    print(f"{result.context_wrapper.usage.total_tokens} tokens")
