"""Turning a finished merge into a model directory: companions, manifest, card, verification."""
