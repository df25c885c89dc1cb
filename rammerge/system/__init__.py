"""The ground: files, locks, sizes and the C library; knows nothing of models."""
