"""lm-eval's view of a model: one that transformers has loaded, or one that answers by functions.

lm-eval is imported by the first call.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from evaluation.backends.decoders import is_known
from evaluation.backends.endings import Endings, end_tokens
from evaluation.backends.generating import last_position_only
from evaluation.backends.greedy import answer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.models.huggingface import HFLM

# What lm-eval says of greedy decoding.
_GREEDY = ({"do_sample": False}, {"do_sample": False, "temperature": 0.0})


def asked(model: Any, tokenizer: Any, *, seq2seq: bool, batch_size: int = 1) -> "HFLM":
    """Return lm-eval's view of a model and a tokenizer of transformers; `seq2seq` if an encoder reads the prompt."""
    from lm_eval.models.huggingface import HFLM

    backend = "seq2seq" if seq2seq else "causal"
    lm = HFLM(pretrained=model, backend=backend, tokenizer=tokenizer, batch_size=batch_size)
    if seq2seq:  # so that each prompt is answered as it would be alone
        lm.tok_batch_encode = partial(_encode, lm)
        lm._model_generate = partial(_generate, lm._model_generate)
    else:
        lm._model_generate = partial(_answer, lm, lm._model_generate)
        lm.generate_until = partial(_generate_until, lm, lm.generate_until)
    return lm


def answering(
    generate: "Callable[[Sequence[Instance]], list[str]]",
    score: "Callable[[Sequence[Instance]], list[tuple[float, bool]]]",
    score_text: "Callable[[Sequence[Instance]], list[float]]",
    render: Callable[[Sequence[Mapping[str, str]]], str] | None = None,
) -> "LM":
    """Return lm-eval's view of a model that answers by functions.

    Args:
        generate: the answers to requests.
        score: the log-likelihood of each request's answer, and whether each of its tokens is the likeliest.
        score_text: the log-likelihood of each request's whole text.
        render: the prompt for turns of a chat.
    """
    from lm_eval.models.dummy import DummyLM

    lm = DummyLM()
    lm.generate_until = lambda requests, **_: generate(requests)
    lm.loglikelihood = lambda requests, **_: score(requests)
    lm.loglikelihood_rolling = lambda requests, **_: score_text(requests)
    if render is not None:
        lm.apply_chat_template = lambda turns, **_: render(turns)
    return lm


def _generate_until(lm: "HFLM", generate_until: Any, requests: "list[Instance]", **options: Any) -> list[str]:
    """Encode each prompt once: lm-eval encodes it to order the prompts, and again to ask it."""
    encode, encode_batch = lm.tok_encode, lm.tok_batch_encode
    known: dict[str, array[int]] = {}

    def remembered(text: str, **settings: Any) -> list[int]:
        tokens: list[int] = encode(text, **settings)
        if not settings:
            known[text] = array("i", tokens)
        return tokens

    def padded(strings: Sequence[str], left_truncate_len: int, truncation: bool = False) -> Any:
        if truncation or not known.keys() >= set(strings):
            return encode_batch(strings, left_truncate_len=left_truncate_len, truncation=truncation)
        encoded = [known[text].tolist()[-left_truncate_len:] for text in strings]
        batch = lm.tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt")
        return batch["input_ids"], batch["attention_mask"]

    lm.tok_encode, lm.tok_batch_encode = remembered, padded
    try:
        answers: list[str] = generate_until(requests, **options)
    finally:
        lm.tok_encode, lm.tok_batch_encode = encode, encode_batch
    return answers


def _encode(lm: "HFLM", strings: Sequence[str], left_truncate_len: int, **_padding: Any) -> tuple[Any, Any]:
    """Pad on the right: an encoder with absolute positions would count padding on the left."""
    encoded = [lm.tok_encode(text, left_truncate_len=left_truncate_len) for text in strings]
    batch = lm.tokenizer.pad({"input_ids": encoded}, padding_side="right", return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def _answer(lm: "HFLM", generate: Any, *, context: Any, attention_mask: Any, **asked: Any) -> Any:
    """Return the context and what follows it, as lm-eval does, with less work."""
    settings = {name: value for name, value in asked.items() if name not in ("stop", "max_length")}
    if settings in _GREEDY and is_known(lm.model) and bool(attention_mask.any(1).all()):
        import torch

        answers = answer(
            lm.model,
            context,
            attention_mask,
            length=asked["max_length"] - context.shape[1],
            endings=Endings(lm.tokenizer, asked["stop"], end_tokens(lm.model)),
            padding=lm.tokenizer.pad_token_id,
        )
        return torch.cat((context, answers), 1)
    with last_position_only(lm.model):
        return generate(context=context, attention_mask=attention_mask, **asked)


def _generate(generate: Any, context: Any, max_length: int, **settings: Any) -> Any:
    """Count the answer, which lm-eval adds to the prompt, and the token that a decoder starts with."""
    return generate(context=context, max_length=max_length - context.shape[1] + 1, **settings)
