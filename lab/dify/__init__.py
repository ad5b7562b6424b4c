"""A stand-in for Dify's own services: one program, one mode for each image.

It stands for langgenius/dify-api (api, worker, beat), dify-web, dify-plugin-daemon, dify-sandbox,
dify-agent-backend and dify-agent-local-sandbox, and for weaviate. Kept: the HTTP contract that a
bootstrap, an upgrade and a chat lean on, as it was observed on the real server, with its traps;
state in PostgreSQL and Redis; keys below the storage folder; migrations at start; streamed
workflows in the worker; the plugin daemon as the only one that talks to Ollama; knowledge that is
asked. Not kept: the user interface, indexing, tools, agents, code, and other plugins than one model
provider.

It runs with Debian's own Python and packages, as ``python3 -m dify MODE``, in images and by itself.
"""
