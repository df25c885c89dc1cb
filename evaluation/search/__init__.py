"""Searches: which candidates see how many validation items, and what came of it."""
