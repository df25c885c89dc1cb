"""The flows: chains of tasks."""

from rammerge.system.neighbours import hidden_neighbour

if _problem := hidden_neighbour():
    raise ImportError(_problem)
