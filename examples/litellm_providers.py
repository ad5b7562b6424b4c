"""LiteLLM by each of its three ways to such a server."""

import os

import litellm

model = os.environ["LLM_MODEL"]
question = {"role": "user", "content": "What is the capital of France?"}

for provider, base in (("openai", "/v1"), ("ollama", ""), ("ollama_chat", "")):
    answer = litellm.completion(
        model=f"{provider}/{model}",
        messages=[question],
        api_base=os.environ["LLM_URL"] + base,
        api_key=os.environ["LLM_KEY"],
        temperature=0,
    )
    usage = answer.usage
    print(f"{provider}: {answer.choices[0].message.content.strip()}")
    print(f"{usage.prompt_tokens} + {usage.completion_tokens} tokens")
