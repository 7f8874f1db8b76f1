"""The promises of a store's back end, a module for each kind of them; ``llmbuffer.testing.stores`` puts them together."""
