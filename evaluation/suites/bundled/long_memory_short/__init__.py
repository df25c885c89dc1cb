"""Memory: one fact among many, overwritten facts, chains of variables."""
