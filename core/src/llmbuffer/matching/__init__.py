"""How caches match and store, one kind a module; ``llmbuffer.cache`` picks by the rules."""
