"""The merge engine: plan, stream, compute and write in bounded memory, with the same bytes every time."""
