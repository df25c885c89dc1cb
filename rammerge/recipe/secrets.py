"""No secrets in recipes: they are versioned, mailed around, and kept with the records of each run."""

from pathlib import Path

from rammerge.errors import InputError
from rammerge.system.redaction import secret_in


def refuse_secrets(path: Path, text: str) -> None:
    """Refuse a secret anywhere in the text of the recipe `path`, comments included; InputError names the line."""
    for number, line in enumerate(text.splitlines(), start=1):
        if kind := secret_in(line):
            raise InputError(
                f"{path}:{number}: holds {kind}, and a recipe is kept with the records of its runs; take it out, "
                "replace it where it was valid, and give the new one by the environment (HF_TOKEN, PGPASSWORD, or the "
                "variable that `key` of a yardstick names)"
            )
