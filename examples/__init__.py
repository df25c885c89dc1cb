"""Examples: the demo's zoo, and a recipe for models of real size."""
