"""The items of HumanEval, from the package of its authors."""

import gzip
import json
from collections.abc import Mapping
from typing import Any

from evaluation.suites.format import Split
from evaluation.suites.making.splitting import split

_VALIDATION = 0.4
_QUESTION = """\
Complete this Python function. Answer with the whole function in one code block, and with nothing else.

```python
{prompt}
```"""


def items(files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split; those whose descriptions are nearly the same lie in one."""
    (packed,) = files.values()
    problems = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    return split([_item(problem) for problem in problems], text="prompt", share=_VALIDATION)


def _item(problem: Mapping[str, str]) -> dict[str, Any]:
    prompt, function = problem["prompt"], problem["entry_point"]
    # Some tests call functions that the prompt defines; the reference solution makes it a whole program.
    reference = prompt + problem["canonical_solution"]
    return {
        "id": problem["task_id"],
        "prompt": _QUESTION.format(prompt=prompt.strip()),
        "function": function,
        "begun": prompt,
        "tests": f"{reference}\n{problem['test']}",
        "target": problem["canonical_solution"],
    }
