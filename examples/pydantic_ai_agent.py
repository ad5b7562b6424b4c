"""An agent with a tool by pydantic-ai, with its OpenAI model and its provider for Ollama."""

import os
import sys

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider

base, key, model = f"{os.environ['LLM_URL']}/v1", os.environ["LLM_KEY"], os.environ["LLM_MODEL"]
asked = []


def get_weather(city: str) -> str:
    """The weather in a city now."""
    asked.append(city)
    return f"It is sunny in {city}, 21 degrees Celsius."


for provider in (
    OpenAIProvider(base_url=base, api_key=key),
    OllamaProvider(base_url=base, api_key=key),
):
    asked.clear()
    agent = Agent(OpenAIChatModel(model, provider=provider), tools=[get_weather])
    result = agent.run_sync("How is the weather in Paris? Use get_weather.")
    if not asked:
        sys.exit(f"{type(provider).__name__}: no tool was called, but said: {result.output}")
    print(f"{type(provider).__name__}: get_weather({asked[0]!r}), then: {result.output.strip()}")
    print(f"{result.usage.total_tokens} tokens")
