"""The flows that chain the tasks."""
