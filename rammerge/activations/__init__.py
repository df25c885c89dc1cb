"""What flows into a model's linear layers on prompts: reading prompts, running the model, keeping activations."""
