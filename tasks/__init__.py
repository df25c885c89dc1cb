"""The steps of the pipeline as Prefect tasks: thin, cached by content, retried where trying again can help."""

from tasks.runtime.environment import prepare

prepare()
