"""The lab's stand-in for vLLM."""
