"""A callback with which transformers' and TRL's trainers keep every checkpoint as a patch (docs/patch.md)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rammerge.checkpoints.family import Source
from rammerge.errors import RammergeError
from rammerge.patches.packing import pack
from rammerge.patches.planning import open_source, opened_like
from rammerge.patches.series import last_link
from rammerge.system.paths import expanded

if TYPE_CHECKING:
    from transformers.trainer_callback import TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments

_PREFIX = "patch-"
_log = logging.getLogger(__name__)


class PatchCallback(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
    """Writes a patch `patch-STEP` whenever the trainer saves a checkpoint.

    The patch holds the model as merges read it: in the base's layout and dtypes, with float32 masters rounded and
    adapters merged into the base. With `save_total_limit=1` the trainer keeps its last checkpoint, from which training
    can resume, and the patches keep all others. A patch that cannot be written is a warning, and training goes on.
    """

    def __init__(self, base: Source, out: str | Path | None = None, *, chain: int = 1) -> None:
        """Keep patches against `base`.

        Args:
            base: what training starts from: a directory, a hub id `org/name[@revision]`, or a checkpoint.
            out: the directory for the patches; default: the trainer's `output_dir`.
            chain: how many patches in a row may depend on one another (`rammerge.pack_series`).

        Raises:
            InputError: the base cannot be read.
        """
        self._base, self._out, self._chain = open_source(base), out, chain

    def on_save(self, args: TrainingArguments, state: TrainerState, _: TrainerControl, **__: Any) -> None:
        """Write the patch of the checkpoint that was saved, in the first process of all."""
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        try:
            out = expanded(self._out or args.output_dir).absolute()
            out.mkdir(parents=True, exist_ok=True)
            before = _last_before(state.global_step, out)
            after = None if before is None else last_link(before, self._chain)
            with opened_like(checkpoint, self._base) as agent:
                report = pack(self._base, agent, out / f"{_PREFIX}{state.global_step}", after=after, force=True)
            _log.info("%s", report)
        except (RammergeError, OSError) as error:
            _log.warning("no patch of step %d: %s", state.global_step, error)


def _last_before(step: int, directory: Path) -> Path | None:
    """Return the patch of the last step before `step`."""
    numbers = (path.name.removeprefix(_PREFIX) for path in directory.glob(f"{_PREFIX}*"))
    last = max((int(number) for number in numbers if number.isdecimal() and int(number) < step), default=None)
    return None if last is None else directory / f"{_PREFIX}{last}"
