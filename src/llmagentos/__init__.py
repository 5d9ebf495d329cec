"""LLMAgentOS."""
