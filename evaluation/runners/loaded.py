"""A model directory ready to be asked, by transformers in this process or by a server of vLLM beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluation.backends.serving import vllm
from evaluation.backends.transformers import load_tokenizer
from evaluation.runners.harness import Asks
from evaluation.runners.local import LocalModel
from evaluation.runners.served import ServedModel


@contextmanager
def open_model(
    model_dir: Path,
    *,
    dtype: str,
    batch_size: int,
    device: str,
    backend: str = "transformers",
    model_digest: str | None = None,
) -> Iterator[Asks]:
    """Load the model while the context lasts; vLLM is asked `batch_size` questions at a time.

    Raises:
        InputError: an unknown dtype, a directory that cannot be loaded, or a vLLM that is not installed.
        RammergeError: the server of vLLM did not start.
    """
    if backend == "transformers":
        yield LocalModel(model_dir, dtype=dtype, batch_size=batch_size, device=device, model_digest=model_digest)
        return
    known = {"dtype": dtype, "device": "vllm", "backend": "vllm", "model_digest": model_digest}
    with vllm(model_dir, dtype=dtype, concurrency=batch_size) as endpoint:
        model = ServedModel(endpoint, known)
        model.tokenizer = load_tokenizer(model_dir)
        yield model
