"""Greedy answers: the same as transformers' `generate` gives, with less work.

Prompts are read without padding, and rows whose answer has ended are left out of what is computed.
"""

from typing import TYPE_CHECKING

from evaluation.backends.decoders import follow, read
from evaluation.backends.endings import Endings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Part of the key of every score: one more where the last bits of logits change, and so, in a tie, an answer.
ANSWERING = 2


def answer(
    model: "PreTrainedModel",
    prompts: "torch.Tensor",
    mask: "torch.Tensor",
    *,
    length: int,
    endings: Endings,
    padding: int,
) -> "torch.Tensor":
    """Return the answers to prompts as tokens [rows, at most `length`], padded behind their ends.

    Args:
        model: one of those that `is_known`.
        prompts: tokens [rows, width], padded on the left.
        mask: 1 for tokens and 0 for padding [rows, width]; no row is empty.
        length: tokens of the longest answer.
        endings: where answers end.
        padding: the token behind an end.
    """
    import torch

    lengths, row = mask.sum(1).sort(stable=True)
    shortest_first = [prompts[each, -length:] for each, length in zip(row.tolist(), lengths.tolist(), strict=True)]
    answers = prompts.new_full((len(prompts), length), padding)
    with torch.inference_mode():
        rows, logits = read(model, shortest_first, length)
        for said in range(length):
            tokens = logits.argmax(-1)
            answers[row, said] = tokens
            going = ~endings.ended(answers[row, : said + 1])
            if not bool(going.any()):
                return answers[:, : said + 1]
            if not bool(going.all()):
                now = rows.keep(going)
                row, tokens = row[now], tokens[now]
            if said + 1 < length:
                logits = follow(model, rows, tokens)
    return answers
