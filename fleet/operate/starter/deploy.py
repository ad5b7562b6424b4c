"""From bare hosts to a private LLM service: `pyinfra inventory/prod.py deploy.py`."""

import llm_fleet

llm_fleet.deploy()

# What is yours may follow here, as in any deploy of pyinfra: it runs after all of the above.
