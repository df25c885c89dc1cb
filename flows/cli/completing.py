"""What the shell offers for a word of the pipeline's commands. The shell itself completes files and directories."""


def complete_suite(incomplete: str) -> list[str]:
    """Return the bundled suites that start with the typed text."""
    from evaluation.suites import available_suites

    return [name for name in available_suites() if name.startswith(incomplete)]
