"""What a run of the pipeline needs around its steps."""
