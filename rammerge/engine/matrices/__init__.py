"""Methods that see whole matrices: each agent's task vector is multiplied from its short side, block by block."""
