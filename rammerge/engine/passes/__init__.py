"""Passes over all tensors: statistics first, then the merge."""
