"""The forms in which trainers save models, read as checkpoints."""
