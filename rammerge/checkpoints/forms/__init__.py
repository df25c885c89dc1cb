"""What trainers leave on disk, read as checkpoints."""
