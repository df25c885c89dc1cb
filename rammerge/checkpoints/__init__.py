"""Checkpoints: finding them, opening them, and telling whether they are intact."""
