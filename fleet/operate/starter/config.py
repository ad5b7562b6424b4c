"""pyinfra runs this file first: how hosts are reached, and what its inventory would leave out."""

import llm_fleet

llm_fleet.config()
