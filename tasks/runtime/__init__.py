"""How any step runs."""
