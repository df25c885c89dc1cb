"""What commands that need Prefect or MLflow do first."""


def prepare() -> None:
    """Have both work below the home, and keep back what they would say themselves."""
    from tasks.records.importing import spare_tables
    from tasks.runtime.environment import activate, quiet

    spare_tables()
    activate()
    quiet()
