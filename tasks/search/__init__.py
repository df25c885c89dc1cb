"""What a search proposes: the space that a recipe describes, and the study that remembers its trials."""
