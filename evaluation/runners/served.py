"""A model on a server, as lm-eval asks it.

lm-eval is imported by the first call.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.backends.served import Endpoint, Served
from evaluation.backends.transformers import PROMPT
from evaluation.runners.harness import Harness, Results, preload
from evaluation.runners.rehearsal import rehearse
from evaluation.suites import SPLITS, Split, Suite
from rammerge.errors import InputError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

# lm-eval's own, where a task does not say how long an answer may be.
_ANSWER_TOKENS = 256
# As many as the protocol takes. An answer is cut at the others when it is here.
_MOST_STOPS = 4
_SEEDS = 2**31
_SETTINGS = ("do_sample", "until", "max_gen_toks", "max_tokens", "max_new_tokens", "max_length")


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
    """A model on a server; `conditions` are the fields of its SuiteResults that say how it runs.

    How the server computes is its own affair, so its dtype, its device and its libraries are not known.
    """

    def __init__(self, endpoint: Endpoint, known: Mapping[str, Any]) -> None:
        """Ask nothing yet; InputError for an endpoint that cannot be meant. `known` replaces what is not known."""
        self._served = Served(endpoint)
        self.conditions: Mapping[str, Any] = {
            "dtype": "unknown",
            "device": f"{endpoint.model} at {endpoint.url}",
            "batch_size": endpoint.concurrency,
            "lm_eval_version": version("lm_eval"),
            "transformers_version": "unknown",
            "torch_version": "unknown",
            **known,
        }

    def try_out(self, *, chat: bool) -> None:
        """Ask for one token, so that what is wrong with the server is known before any suite is built.

        Raises:
            InputError: the server refuses the key, or does not know the model.
            RammergeError: the server does not answer.
        """
        prompt = json.dumps([{"role": "user", "content": PROMPT}]) if chat else PROMPT
        question = _question(prompt, {"max_gen_toks": 1}, chat=chat, seed=None)
        self._served.generate("chat/completions" if chat else "completions", [question])

    @contextmanager
    def asked(self, *, chat: bool, seed: int | None) -> Iterator["LM"]:
        """Return the context in which lm-eval asks it; with `chat` the server renders the turns of a prompt."""
        yield _view(self._served, chat=chat, seed=seed)

    def cost(self, texts: Sequence[str]) -> Mapping[str, Any]:  # noqa: ARG002  (the server has the tokenizer)
        """Nothing is known of it here."""
        return {}

    def template(self) -> None:
        """Return None: the server does not say how it renders turns."""


def _view(model: Served, *, chat: bool, seed: int | None) -> "LM":
    from lm_eval.api.model import LM

    class View(LM):  # type: ignore[misc]  # lm-eval has no types
        tokenizer_name = ""  # names lm-eval's cache of requests, which is never used

        def apply_chat_template(self, chat_history: Any, **_: Any) -> str:
            return json.dumps(chat_history, ensure_ascii=False)

        def generate_until(self, requests: "list[Instance]", **_: Any) -> list[str]:
            asked = [_question(*request.args, chat=chat, seed=seed) for request in requests]
            answers = model.generate("chat/completions" if chat else "completions", asked)
            return [_cut(answer, request.args[1]) for answer, request in zip(answers, requests, strict=True)]

        def loglikelihood(self, requests: "list[Instance]", **_: Any) -> list[tuple[float, bool]]:
            if chat:
                raise InputError(
                    f"the model '{model.endpoint.model}' on a server cannot be asked in its chat how likely an answer "
                    f"is; set apply_chat_template: false in the suite, or evaluate the model's directory"
                )
            return model.score([request.args for request in requests])

        def loglikelihood_rolling(self, requests: "list[Instance]", **_: Any) -> list[float]:
            return [log for log, _ in model.score([("", *request.args) for request in requests])]

    return View()


def _question(prompt: str, settings: Mapping[str, Any], *, chat: bool, seed: int | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": json.loads(prompt)} if chat else {"prompt": prompt}
    lengths = [settings[key] for key in ("max_gen_toks", "max_tokens", "max_new_tokens") if key in settings]
    # All tokens are likely enough, which is the protocol's default too, and not every server takes top_k.
    rest = {key: value for key, value in settings.items() if key not in _SETTINGS and (key, value) != ("top_k", 0)}
    asked |= {"temperature": 0.0, "max_tokens": int(lengths[0]) if lengths else _ANSWER_TOKENS} | rest
    if seed is not None:
        asked["seed"] = seed % _SEEDS
    if stops := _stops(settings)[:_MOST_STOPS]:
        asked["stop"] = stops
    return asked


def _stops(settings: Mapping[str, Any]) -> Sequence[str]:
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _cut(answer: str, settings: Mapping[str, Any]) -> str:
    for stop in _stops(settings):
        answer = answer.split(stop)[0] if stop else answer
    return answer
