"""Where tiktoken keeps the vocabulary that the Ollama plugin loads after every streamed answer."""

import hashlib

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
# tiktoken's own naming, in TIKTOKEN_CACHE_DIR.
NAME = hashlib.sha1(URL.encode()).hexdigest()  # noqa: S324
