"""The adapter of llmbuffer for LangChain and LangGraph."""
