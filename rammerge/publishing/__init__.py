"""From a finished merge to a model directory: companions, manifest, card, verification."""
