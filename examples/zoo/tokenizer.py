"""The zoo's tokenizer: each word of a domain is one token, and so is each other printable ASCII character."""

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from examples.zoo.domains import code, memory, tool

PAD, UNKNOWN, END = "<pad>", "<unk>", "<eos>"
STOP = "\n"  # ends a completion


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; any printable ASCII text survives a round trip."""
    words = sorted({*tool.words(), *code.words(), *memory.words()})
    characters = sorted({*string.printable.rstrip("\t\r\x0b\x0c"), STOP})
    vocabulary = {token: index for index, token in enumerate([PAD, UNKNOWN, END, *characters, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    pattern = "|".join([*(re.escape(word) for word in longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )
