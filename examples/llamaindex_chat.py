"""LlamaIndex by `llama-index-llms-ollama`, which asks for a model's context and sends it along."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.ollama import Ollama

llm = Ollama(
    model=os.environ["LLM_MODEL"],
    base_url=os.environ["LLM_URL"],
    headers={"Authorization": f"Bearer {os.environ['LLM_KEY']}"},
    request_timeout=120,
    temperature=0,
)
question = ChatMessage(role="user", content="What is the capital of France?")

print(llm.chat([question]).message.content)
pieces = [part.delta for part in llm.stream_chat([question]) if part.delta]
print(f"{len(pieces)} pieces: {''.join(pieces).strip()}")
print(f"a context of {llm.get_context_window()}")
