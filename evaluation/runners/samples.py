"""The samples in lm-eval's log of a task: id, prompt, target, completion and score of each item."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsFloat

from evaluation.runners.acting import Conversation
from evaluation.suites import Suite, cluster_of
from rammerge.errors import InputError, closest

_OF_AN_ANSWER = ("completion", "score", "turns")


def samples(suite: Suite, logged: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the samples of one split, sorted by id, from lm-eval's log by task.

    An id is the item's own, or else its position in the data. With several tasks it begins with the task's name.
    `item` is lm-eval's digest of the item's content, `cluster` is there where the suite declares clusters, and `turns`
    where the completion is a conversation.

    Raises:
        InputError: a task lacks the suite's metric or filter, or scored an item outside [0, 1].
    """
    several = len(logged) > 1
    found = (sample for task in sorted(logged) for sample in _samples(suite, task, logged[task], prefix=several))
    return sorted(found, key=lambda sample: str(sample["id"]))


def joined(repeats: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the samples of several answers to the same items as one sample for each item.

    `score` is the mean; `completion` is the first answer's; `answers` has the completion and the score of each.
    """
    return [
        {
            **answers[0],
            "score": math.fsum(answer["score"] for answer in answers) / len(answers),
            "answers": [{key: answer[key] for key in _OF_AN_ANSWER if key in answer} for answer in answers],
        }
        for answers in zip(*repeats, strict=True)
    ]


def digest_items(samples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 over the ids and contents of the items: data fetched by lm-eval's library can change under one name."""
    return hashlib.sha256(json.dumps([[sample["id"], sample["item"]] for sample in samples]).encode()).hexdigest()


def count_tokens(tokenizer: Any, samples: Sequence[Mapping[str, Any]]) -> int | None:
    """Return how many tokens the prompts and the answers are, as a tokenizer of transformers counts; None without it.

    A prompt that was answered several times counts each time.
    """
    if tokenizer is None:
        return None
    texts = Counter(
        text
        for sample in samples
        for answer in sample.get("answers", [sample])
        for text in (sample["prompt"], answer["completion"])
    )
    # The masks would take as long as the tokens.
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
    return sum(times * len(ids) for times, ids in zip(texts.values(), encoded["input_ids"], strict=True))


def _samples(suite: Suite, task: str, logged: Sequence[Mapping[str, Any]], *, prefix: bool) -> Iterator[dict[str, Any]]:
    file = suite.path / "suite.yaml"
    where = f"{file}: the task '{task}'"
    metric, _, named_filter = suite.metric.partition(",")
    filters = sorted({entry["filter"] for entry in logged})
    if not filters:
        raise InputError(f"{file}: the task '{task}' has an empty filter_list; remove the key, or name a filter")
    chosen = named_filter or filters[0]
    if chosen not in filters or (len(filters) > 1 and not named_filter):
        raise InputError(
            f"{file}: the task '{task}' has the filters {', '.join(filters)}: "
            f"write the metric as '{metric},{filters[0]}'"
        )
    for entry in logged:
        if entry["filter"] == chosen:
            identity = str(entry["doc"].get("id", entry["doc_id"]))
            yield {
                "id": f"{task}/{identity}" if prefix else identity,
                "prompt": entry["arguments"][0][0],
                "target": str(entry["target"]),
                "completion": _completion(entry),
                "score": _score(where, metric, entry),
                "item": entry["doc_hash"],
                **_turns(entry),
                **({} if suite.cluster is None else {"cluster": cluster_of(entry["doc"], suite.cluster, where)}),
            }


def _completion(entry: Mapping[str, Any]) -> str:
    """Return the generated text, or for multiple choice the text of the most likely choice."""
    responses = entry["filtered_resps"]
    if isinstance(responses[0], str):
        return str(responses[0])
    likeliest = max(range(len(responses)), key=lambda choice: float(responses[choice][0]))
    return str(entry["arguments"][likeliest][1])


def _turns(entry: Mapping[str, Any]) -> dict[str, Any]:
    response = entry["filtered_resps"][0]
    return {"turns": response.turns} if isinstance(response, Conversation) else {}


def _score(where: str, metric: str, entry: Mapping[str, Any]) -> float:
    metrics = entry["metrics"]
    if metric not in metrics:
        raise InputError(f"{where} has no metric '{metric}'{closest(metric, metrics)}; it has {', '.join(metrics)}")
    score = entry[metric]
    if not isinstance(score, SupportsFloat) or not 0.0 <= float(score) <= 1.0:
        raise InputError(
            f"{where} gave an item the {metric} {score!r}, but a suite's metric must score each item in [0, 1] so that "
            f"suites can be averaged"
        )
    return float(score)
