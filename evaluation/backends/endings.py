"""Where answers end: at a token, or where their text has something in it.

torch is imported by the first call.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# As lm-eval does: a stop string may begin or end within a token.
_MORE = 2


class Endings:
    """Tells which answers have ended, each as if it were alone."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], tokens: Collection[int]) -> None:
        """End answers at any of these texts and tokens."""
        self._tokenizer, self._texts, self._tokens = tokenizer, tuple(texts), list(tokens)
        sizes = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        self._window = max(sizes, default=0) + _MORE
        self._known: dict[tuple[int, ...], bool] = {}

    def ended(self, answers: "torch.Tensor") -> "torch.Tensor":
        """Tell for each answer whether its last token ends it.

        Args:
            answers: tokens so far [answers, tokens].
        """
        import torch

        told = [self._ends(tuple(last)) for last in answers[:, -self._window :].tolist()]
        return torch.tensor(told, device=answers.device)

    def _ends(self, last: tuple[int, ...]) -> bool:
        if last not in self._known:
            text = self._tokenizer.decode(last) if self._texts else ""
            self._known[last] = last[-1] in self._tokens or any(each in text for each in self._texts)
        return self._known[last]


def end_tokens(model: "PreTrainedModel") -> list[int]:
    """Return the tokens with which a model says that its answer has ended."""
    said = model.generation_config.eos_token_id
    return said if isinstance(said, list) else [] if said is None else [said]
