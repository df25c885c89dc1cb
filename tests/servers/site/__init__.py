"""Production as `rammerge serve` runs it, started once: PostgreSQL, both servers with passwords, workers."""
