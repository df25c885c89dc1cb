"""The suites of the three domains."""
