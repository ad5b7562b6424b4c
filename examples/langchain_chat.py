"""LangChain by `langchain-openai`, and by `langchain-ollama` with a context that it asks for."""

import os

from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

url, key, model = (os.environ[name] for name in ("LLM_URL", "LLM_KEY", "LLM_MODEL"))
question = "What is the capital of France?"

for chat in (
    ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=key, temperature=0),
    # The gateway leaves num_ctx out, and says so in the answer's head: the context that a model is
    # loaded with is the fleet's to decide.
    ChatOllama(
        model=model,
        base_url=url,
        client_kwargs={"headers": {"Authorization": f"Bearer {key}"}},
        num_ctx=8192,
        temperature=0,
    ),
):
    answer = chat.invoke(question)
    usage = answer.usage_metadata
    print(f"{type(chat).__name__}: {answer.content.strip()}")
    print(f"{usage['input_tokens']} + {usage['output_tokens']} tokens")
    pieces = [part.content for part in chat.stream(question) if part.content]
    print(f"{len(pieces)} pieces: {''.join(pieces).strip()}")
