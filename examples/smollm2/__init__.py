"""A real language model: agents of SmolLM2-135M-Instruct by reinforcement learning, and what it takes to merge them."""
