"""The adapter of llmbuffer for AutoGen, classic and agentchat."""
