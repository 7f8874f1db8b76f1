"""Dialects: one provider's wire shape and cache rules each. Looked up by name through ``llmbuffer.plugins``."""
