"""Real servers on PostgreSQL with passwords, workers, and what runs on them: `pytest -m servers`."""
