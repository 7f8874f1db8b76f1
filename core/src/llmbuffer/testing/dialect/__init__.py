"""The promises of a dialect, a module for each kind of them; ``llmbuffer.testing.dialects`` puts them together."""
