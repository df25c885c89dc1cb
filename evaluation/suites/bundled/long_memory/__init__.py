"""Memory: one fact among thousands, overwritten facts, chains of variables."""
