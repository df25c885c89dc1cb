"""lm-eval's view of a model on a server.

lm-eval is imported by the first call.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.backends.served import Served
from rammerge.errors import InputError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

# lm-eval's own, where a task does not say how long an answer may be.
_ANSWER_TOKENS = 256
# As many as the protocol takes. An answer is cut at the others when it is here.
_MOST_STOPS = 4
_SETTINGS = ("do_sample", "until", "max_gen_toks", "max_tokens", "max_new_tokens", "max_length")


def served(model: Served, *, chat: bool) -> "LM":
    """Return lm-eval's view of a model on a server; with `chat` prompts are turns, for the server to render."""
    from lm_eval.api.model import LM

    class _Served(LM):
        tokenizer_name = ""  # names lm-eval's cache of requests, which is never used

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:  # noqa: ARG002
            return json.dumps(chat_history, ensure_ascii=False)

        def generate_until(self, requests: "list[Instance]", **_: Any) -> list[str]:
            asked = [_question(*request.args, chat=chat) for request in requests]
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
            return [log for log, _ in model.score([("", text) for (text,) in (each.args for each in requests)])]

    return _Served()


def _question(prompt: str, settings: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": json.loads(prompt)} if chat else {"prompt": prompt}
    lengths = [settings[key] for key in ("max_gen_toks", "max_tokens", "max_new_tokens") if key in settings]
    rest = {key: value for key, value in settings.items() if key not in _SETTINGS}
    asked |= {"temperature": 0.0, "max_tokens": int(lengths[0]) if lengths else _ANSWER_TOKENS} | rest
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
