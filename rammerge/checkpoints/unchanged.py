"""Finding the reason why an agent has the weights of its base."""

from contextlib import suppress
from pathlib import Path

from rammerge.checkpoints.checkpoint import RECORD, Checkpoint
from rammerge.errors import InputError
from rammerge.system.reading import list_directory, read_json_object

_MOST_LISTED = 3
_FIRST_STEPS = ("checkpoint-0", "global_step_0", "step_0")


def why_unchanged(agent: Checkpoint) -> str:
    """Return the reason as the continuation of a sentence, or "" if the files do not show it."""
    with suppress(InputError):
        if (agent.path / RECORD).is_file() and read_json_object(agent.path / RECORD).get("form") == "PEFT LoRA adapter":
            return (
                ": every change of the adapter is smaller than a step of the base's dtype (a float32 base keeps them)"
            )
        if step := _untrained(agent.path):
            return f": it was saved {step}"
        if found := _trained_below(agent.path):
            listed = ", ".join(found[:_MOST_LISTED])
            return f", but {listed} in {agent.path} may contain the trained weights"
    return ""


def _untrained(path: Path) -> str:
    """Return the trainer's statement that no step was done, or ""."""
    state = path / "trainer_state.json"
    if state.is_file() and read_json_object(state).get("global_step") == 0:
        return "before the first step, by its trainer_state.json"
    return "before the first step, by its name" if path.name in _FIRST_STEPS else ""


def _trained_below(path: Path) -> list[str]:
    """Return the entries of `path` that contain adapters or checkpoints of later steps."""
    found = []
    for entry in list_directory(path):
        if entry.name.startswith(("adapter_model.", "checkpoint-", "global_step_", "step_")) or (
            entry.is_dir() and any(below.name.startswith("adapter_model.") for below in list_directory(Path(entry)))
        ):
            found.append(entry.name)
    return found
