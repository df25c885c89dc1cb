"""Which merge wins on agents trained by reinforcement learning, over seeds and regimes: see docs/results.md."""
