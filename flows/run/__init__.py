"""Planning, checking and reporting a run of the pipeline."""
