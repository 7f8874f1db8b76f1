"""The promises of an adapter, one module a group of capabilities."""
