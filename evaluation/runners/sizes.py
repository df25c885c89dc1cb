"""How many tokens a question takes, and how much room the model has for it."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

# More than a tokenizer adds to a text.
_SPECIAL_TOKENS = 16


class Size(NamedTuple):
    """Tokens of a prompt, of the longest answer to it, and the room that the context has for the prompt."""

    prompt: int
    answer: int
    room: int


def measure(reader: "HFLM", request: "Instance") -> Size:
    """Return the size of a request for a model. A prompt that surely fits is measured in bytes, which is enough."""
    if request.request_type == "generate_until":
        from lm_eval.models.utils import normalize_gen_kwargs

        prompt, settings = request.args
        answer = int(normalize_gen_kwargs(settings, reader.max_gen_toks)["max_gen_toks"])
        room = reader.max_length - answer
        if reader.backend == "seq2seq":
            positions = getattr(reader.config, "max_position_embeddings", None)  # which the decoder has of its own
            room = 0 if positions is not None and answer >= positions else reader.max_length
        return Size(_count(reader, prompt, room), answer, room)
    if request.request_type == "loglikelihood":
        prompt, continuation = request.args
        answer = 0 if reader.backend == "seq2seq" else len(reader.tok_encode(continuation, add_special_tokens=False))
        # The last token of an answer is compared, and not read.
        room = reader.max_length - max(0, answer - 1)
        return Size(_count(reader, prompt, room), answer, room)
    return Size(0, 0, reader.max_length)  # lm-eval cuts a long text into windows


def _count(reader: "HFLM", text: str, room: int) -> int:
    """Return the number of tokens; where there is room to spare, the number of bytes, which is larger."""
    size = len(text.encode())
    return size if 2 * size + _SPECIAL_TOKENS < room else len(reader.tok_encode(text))
