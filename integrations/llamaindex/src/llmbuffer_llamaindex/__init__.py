"""The adapter of llmbuffer for LlamaIndex."""
