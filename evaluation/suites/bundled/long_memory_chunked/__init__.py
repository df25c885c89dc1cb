"""Memory that is rewritten part by part, and answers alone."""
