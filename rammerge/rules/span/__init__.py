"""Methods whose result is a linear combination of the task vectors, by factors from their inner products alone."""
