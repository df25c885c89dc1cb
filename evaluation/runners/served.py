"""A model on a server, as lm-eval asks it.

lm-eval is imported by the first call.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.backends.served import Endpoint, Kind, Served, TooLongError
from evaluation.backends.transformers import PROMPT
from evaluation.runners.harness import Harness, Results, preload
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.views import answering
from evaluation.suites import SPLITS, Split, Suite
from rammerge.errors import InputError
from rammerge.system.redaction import without_credentials

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

# As many as the protocol takes. An answer is cut at the others when it is here.
_MOST_STOPS = 4
_SEEDS = 2**31
_SETTINGS = ("do_sample", "until", "max_gen_toks", "max_length")  # have other names there, or none


def evaluate_served(
    endpoint: Endpoint,
    suites: Sequence[Suite],
    *,
    splits: Sequence[Split] = SPLITS,
    limit: int | None = None,
    out: Path | None = None,
    known: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Evaluate a model on a server on every split of every suite; see `evaluation.runners.harness.evaluate_model`.

    `known` are fields of the results that the server does not tell, such as its dtype.

    Raises:
        InputError: as `evaluate_model`; also a server that refuses the key or does not know the model.
        RammergeError: as `evaluate_model`; also a question that got no answer, however often it was asked.
    """
    if limit is not None and limit < 1:
        raise InputError("the evaluation's limit must be at least 1")
    model = ServedModel(endpoint, known or {})
    for chat in sorted({suite.apply_chat_template for suite in suites}):
        model.try_out(chat=chat)
    preload()
    rehearse(suites, {}, limit=limit, splits=splits)
    return Harness(model).evaluate(suites, splits=splits, limit=limit, out=out, progress=progress)


class ServedModel:
    """A model on a server; see `evaluation.runners.harness.Asks`.

    How the server computes is its own affair, so its dtype, its device and its libraries are not known.
    """

    tokenizer: Any = None

    def __init__(self, endpoint: Endpoint, known: Mapping[str, Any]) -> None:
        """Ask nothing yet; InputError for an endpoint that is not valid. `known` replaces what is not known."""
        self._served = Served(endpoint)
        self.conditions: Mapping[str, Any] = {
            "dtype": "unknown",
            "device": f"{endpoint.model} at {without_credentials(endpoint.url)}",
            "batch_size": endpoint.concurrency,
            "lm_eval_version": version("lm_eval"),
            "transformers_version": "unknown",
            "torch_version": "unknown",
            "backend": "unknown",
            **known,
        }

    def try_out(self, *, chat: bool) -> None:
        """Ask for one token, so that what is wrong with the server is known before any suite is built.

        Raises:
            InputError: the server refuses the key, or does not know the model.
            RammergeError: the server does not answer.
        """
        prompt = _turns([{"role": "user", "content": PROMPT}]) if chat else PROMPT
        self._served.generate(_kind(prompt), [{**_asking(prompt), "temperature": 0.0, "max_tokens": 1}])

    @contextmanager
    def asked(self, seed: int | None) -> Iterator["LM"]:
        """Return the context in which lm-eval asks it; the server renders the turns of a chat."""
        yield answering(partial(self._generate, seed), self._score, self._score_text, _turns)

    def peak_memory(self) -> None:
        """Return None: the server does not say."""

    def _generate(self, seed: int | None, requests: "Sequence[Instance]") -> list[str]:
        from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

        prompts = [request.args[0] for request in requests]
        settings = [normalize_gen_kwargs(request.args[1]) for request in requests]
        asked = [_question(*each, seed) for each in zip(prompts, settings, strict=True)]
        ends = [each["until"] for each in settings]
        try:
            answers = self._served.generate(_kind(prompts[0]), asked)
        except TooLongError as error:
            error.answers = [
                answer if answer is None else postprocess_generated_text(answer, end, None)
                for answer, end in zip(error.answers, ends, strict=True)
            ]
            raise
        return [postprocess_generated_text(answer, end, None) for answer, end in zip(answers, ends, strict=True)]

    def _score(self, requests: "Sequence[Instance]") -> list[tuple[float, bool]]:
        if isinstance(requests[0].args[0], _Turns):
            raise InputError(
                f"the model '{self._served.endpoint.model}' on a server cannot be asked in its chat how likely an "
                f"answer is; set apply_chat_template: false in the suite, or evaluate the model's directory"
            )
        return self._served.score([request.args for request in requests])

    def _score_text(self, requests: "Sequence[Instance]") -> list[float]:
        return [log for log, _ in self._served.score([("", *request.args) for request in requests])]


class _Turns(str):
    """A prompt that is the turns of a chat, in JSON."""

    __slots__ = ()


def _turns(turns: Sequence[Mapping[str, str]]) -> _Turns:
    return _Turns(json.dumps(turns, ensure_ascii=False))


def _kind(prompt: str) -> Kind:
    return "chat/completions" if isinstance(prompt, _Turns) else "completions"


def _asking(prompt: str) -> dict[str, Any]:
    return {"messages": json.loads(prompt)} if isinstance(prompt, _Turns) else {"prompt": prompt}


def _question(prompt: str, settings: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Return the protocol's JSON for a prompt and lm-eval's settings."""
    # All tokens are likely enough, which is the protocol's default too, and not every server takes top_k.
    rest = {key: value for key, value in settings.items() if key not in _SETTINGS and (key, value) != ("top_k", 0)}
    asked = _asking(prompt) | {"max_tokens": settings["max_gen_toks"]} | rest
    if seed is not None:
        asked["seed"] = seed % _SEEDS
    if stops := settings["until"][:_MOST_STOPS]:
        asked["stop"] = stops
    return asked
