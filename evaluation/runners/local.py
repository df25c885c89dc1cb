"""A model that transformers runs in this process, as lm-eval asks it.

lm-eval and torch are imported by the first call.
"""

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.backends.transformers import drop_decoding_settings, load, threads_for
from evaluation.runners.batches import choose_batch
from evaluation.runners.views import asked
from evaluation.suites import Suite

if TYPE_CHECKING:
    from lm_eval.api.model import LM


class LocalModel:
    """A loaded model; see `evaluation.runners.harness.Asks`."""

    def __init__(
        self, model_dir: Path, *, dtype: str, batch_size: int, device: str, model_digest: str | None = None
    ) -> None:
        """Load the model.

        Raises:
            InputError: an unknown dtype, or a directory that transformers cannot load.
        """
        loaded = load(model_dir, dtype=dtype, device=device)
        drop_decoding_settings(loaded.model)
        self._lm = asked(loaded.model, loaded.tokenizer, seq2seq=loaded.seq2seq, batch_size=batch_size)
        self.tokenizer: Any = self._lm.tokenizer
        self.conditions: Mapping[str, Any] = {
            "dtype": dtype,
            "device": device,
            "batch_size": batch_size,
            "lm_eval_version": version("lm_eval"),
            "transformers_version": version("transformers"),
            "torch_version": version("torch"),
            "model_digest": model_digest,
        }

    @contextmanager
    def asked(self, seed: int | None) -> Iterator["LM"]:
        """Return the context in which lm-eval asks it; the process's own random state is left alone."""
        import torch

        with threads_for(self._lm.model), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield self._lm

    def resize(self, batch_size: int) -> None:
        """Ask that many prompts at a time from now on."""
        self._lm.batch_size_per_gpu = batch_size
        self.conditions = {**self.conditions, "batch_size": batch_size}

    def choose_batch(self, suite: Suite, limit: int | None) -> int:
        """Return how many prompts of a suite are best asked at a time; see `evaluation.runners.batches`."""
        with threads_for(self._lm.model):
            return choose_batch(self._lm, suite, limit)

    def peak_memory(self) -> int:
        """Return the peak memory of the GPU or of this process, in bytes."""
        import torch

        device = self._lm.device
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
