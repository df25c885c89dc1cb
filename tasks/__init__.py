"""The steps of the pipeline as Prefect tasks: thin, cached by content, and retried where that can help.

Importing this package changes nothing in the process. Entry points call `tasks.runtime.environment.activate`.
"""
