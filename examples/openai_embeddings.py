"""Embeddings with the package `openai`. LLM_EMBEDDING_MODEL is a model that makes them."""

import os

import openai

client = openai.OpenAI(base_url=f"{os.environ['LLM_URL']}/v1", api_key=os.environ["LLM_KEY"])

texts = ["Paris is the capital of France.", "The cat sleeps."]
answer = client.embeddings.create(model=os.environ["LLM_EMBEDDING_MODEL"], input=texts)
for text, item in zip(texts, answer.data, strict=True):
    print(f"{text} {len(item.embedding)} numbers, from {item.embedding[0]:.4f}")
print(f"{answer.usage.prompt_tokens} tokens")
