"""Problems that reasoning-gym 0.1.25 made (Apache-2.0); `python -m benchmarks.reasoning_gym` makes them again."""
