"""A model that acts in a suite's environment, as lm-eval asks it: one of its answers is a whole conversation.

All conversations that go on take their next turn in one call of the model, so batches stay large.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from evaluation.backends.served import TooLongError
from evaluation.runners.patience import limited
from evaluation.runners.sizes import measure
from evaluation.runners.views import answering
from evaluation.suites.environment import Environment, Reply, World

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

Turn = dict[str, Any]


class Conversation(str):
    """What was said after the first prompt.

    As text it is what people read.

    Attributes:
        turns: its messages, with `role` and `content`; `forget` where the model was told what follows alone.
        score: of the item; 0 if the conversation did not end within its bounds.
    """

    turns: list[Turn]
    score: float

    @classmethod
    def of(cls, turns: list[Turn], score: float) -> "Conversation":
        """Return a conversation of these turns."""
        made = cls("\n\n".join(f"[{turn['role']}] {turn['content']}" for turn in turns))
        made.turns, made.score = turns, score
        return made


class _Prompt(str):
    """A prompt of the model's template, with the turns that it was made of."""

    turns: list[Turn]


def acting(lm: Any, world: World) -> "LM":
    """Return lm-eval's view of a model whose answers to prompts are conversations with the suite's environment.

    Raises:
        InputError: the environment cannot be imported.
    """
    converse = partial(_converse, lm, world.load(), world.turns)
    return answering(converse, lm.loglikelihood, lm.loglikelihood_rolling, partial(_render, lm))


def _render(lm: Any, turns: Sequence[Mapping[str, str]]) -> _Prompt:
    prompt = _Prompt(lm.apply_chat_template(turns))
    prompt.turns = [dict(turn) for turn in turns]
    return prompt


def _converse(lm: Any, make: Callable[[], Environment], turns: int, requests: "Sequence[Instance]") -> list[str]:
    """Return the conversation about each request."""
    episodes = [_Episode(make(), request) for request in requests]
    for turn in range(turns):
        live = [episode for episode in episodes if not episode.over]
        if not live:
            break
        answers = _ask(lm, [episode.question(lm) for episode in live], first=turn == 0)
        for episode, answer in zip(live, answers, strict=True):
            episode.take(answer)
    return [Conversation.of(episode.said, episode.score) for episode in episodes]


def _ask(lm: Any, questions: "Sequence[Instance]", *, first: bool) -> "Sequence[str | None]":
    """Return the answers; None to a question that does not fit into the model's context.

    First questions are the suite's prompts, which are treated as those of every suite.
    """
    if first:
        return list(lm.generate_until(questions))
    fits = [_fits(lm, question) for question in questions]
    asked = [question for question, fitting in zip(questions, fits, strict=True) if fitting]
    try:
        answers = iter(lm.generate_until(asked) if asked else ())
    except TooLongError as error:
        answers = iter(error.answers)
    return [next(answers) if fitting else None for fitting in fits]


def _fits(lm: Any, question: "Instance") -> bool:
    """Return whether a question fits into the model's context, as far as that is known here."""
    if not hasattr(lm, "tok_encode"):
        return True
    size = measure(lm, question)
    return size.prompt <= size.room


class _Episode:
    """One item on its way."""

    def __init__(self, environment: Environment, request: "Instance") -> None:
        prompt, self._settings = request.args
        self._request = request
        self._step = limited(environment.step)
        # A rehearsal has no template.
        self._known = list(getattr(prompt, "turns", None) or [{"role": "user", "content": prompt}])
        self.said: list[Turn] = []
        self.over, self.score = False, 0.0
        limited(environment.reset)(copy.deepcopy(request.doc))  # results name items by their content

    def question(self, lm: Any) -> "Instance":
        """Return what the model is asked next."""
        from lm_eval.api.instance import Instance

        request = self._request
        prompt = lm.apply_chat_template(self._known)
        return Instance(request.request_type, request.doc, (prompt, self._settings), 0, metadata=request.metadata)

    def take(self, answer: str | None) -> None:
        """Take an answer to the environment, and keep what it says. Without an answer the item is over."""
        if answer is None:
            self.over = True
            return
        reply = self._step(answer)
        if not isinstance(reply, Reply) or not isinstance(reply.text, str):
            raise TypeError(f"step returned {reply!r}, which is no Reply with a text")
        told = {"role": "user", "content": reply.text}
        said = [{"role": "assistant", "content": answer}, told]
        self._known = [told] if reply.forget else [*self._known, *said]
        if reply.score is not None:
            self.over, self.score = True, reply.score
        if reply.text:
            self.said += [said[0], told | ({"forget": True} if reply.forget else {})]
        else:
            self.said.append(said[0])
