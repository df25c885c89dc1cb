"""Commands of the library alone."""
