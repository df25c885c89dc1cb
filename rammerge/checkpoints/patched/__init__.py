"""Agents that are stored as their differences from the base (docs/patch.md), and reading them."""
