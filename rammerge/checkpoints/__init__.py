"""Checkpoints: where they come from, what is in them, and whether they can be trusted."""
