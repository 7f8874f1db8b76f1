"""The adapter of llmbuffer for CrewAI."""
