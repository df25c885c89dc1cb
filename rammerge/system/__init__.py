"""The ground floor: files, locks, sizes and the C library. Nothing here knows what a model is."""
