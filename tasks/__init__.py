"""The steps of the pipeline as Prefect tasks: thin, cached by content, retried where trying again can help.

Importing this package changes nothing in the process. Whoever runs a flow calls `tasks.runtime.environment.activate`.
"""
