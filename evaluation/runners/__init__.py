"""Running models on suites."""
