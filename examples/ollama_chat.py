"""The package `ollama`: which models there are, one of them shown, and a chat as a stream.

Where OLLAMA_HOST and OLLAMA_API_KEY are set, `ollama.chat(...)` alone does it.
"""

import os

import ollama

client = ollama.Client(
    host=os.environ["LLM_URL"], headers={"Authorization": f"Bearer {os.environ['LLM_KEY']}"}
)
model = os.environ["LLM_MODEL"]

for entry in client.list().models:
    print(f"{entry.model} {entry.details.parameter_size}")
shown = client.show(model)
context = next(n for name, n in shown.modelinfo.items() if name.endswith(".context_length"))
print(f"{model} can {', '.join(shown.capabilities)}; a context of {context} at most")

pieces = 0
question = {"role": "user", "content": "What is the capital of France?"}
for part in client.chat(model, [question], stream=True, options={"temperature": 0}):
    print(part.message.content, end="", flush=True)
    pieces += bool(part.message.content)
print(f"\n{pieces} pieces, {part.prompt_eval_count} + {part.eval_count} tokens")
