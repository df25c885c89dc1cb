"""A model that transformers runs in this process, as lm-eval asks it.

lm-eval and torch are imported by the first call.
"""

import hashlib
import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.backends.transformers import drop_decoding_settings, load, threads_for
from evaluation.runners.asking import asked

if TYPE_CHECKING:
    from lm_eval.api.model import LM


class LocalModel:
    """A loaded model; `conditions` are the fields of its SuiteResults that say how it runs."""

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
    def asked(self, *, chat: bool, seed: int | None) -> Iterator["LM"]:  # noqa: ARG002  (the template is its own)
        """Return the context in which lm-eval asks it; the process's own random state is left alone."""
        import torch

        with threads_for(self._lm.model), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield self._lm

    def cost(self, texts: Sequence[str]) -> Mapping[str, Any]:
        """Return the number of tokens in `texts`, and the peak memory of the GPU or of this process in bytes."""
        import torch

        device = self._lm.device
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
        ids = self._lm.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return {"tokens": sum(map(len, ids)), "peak_memory": peak}

    def template(self) -> str:
        """Return the SHA-256 of the model's chat template."""
        return hashlib.sha256(json.dumps(self._lm.tokenizer.chat_template, sort_keys=True).encode()).hexdigest()
