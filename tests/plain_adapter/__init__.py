"""A tiny agent framework and an adapter for it: what the contract of adapters is tried on."""
