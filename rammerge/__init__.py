"""Merge reinforcement-learned LLM agents, prove that the merge is better, and promote it."""

__version__ = "0.1.0"
