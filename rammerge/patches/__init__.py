"""Packing an agent as its difference from the base, and unpacking it (docs/patch.md)."""
