"""`rammerge evaluate`: one model on suites."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.completing import complete_suite
from rammerge.cli.terminal import say
from rammerge.errors import InputError

if TYPE_CHECKING:
    from evaluation.backends.served import Endpoint
    from evaluation.runners.harness import Results
    from evaluation.suites import Suite

Backend = Literal["transformers", "openai", "vllm"]
Dtype = Literal["float32", "bfloat16", "float16"]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=r"A directory, or a hub id ORG/NAME\[@REVISION]; with --backend openai the server's name for it.",
    ),
]
SuiteNames = Annotated[
    list[str],
    typer.Option(
        "--suite", metavar="SUITE", help="A bundled suite, or a directory. Repeat it.", autocompletion=complete_suite
    ),
]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The server of --backend openai, such as http://127.0.0.1:8000/v1."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the results, item by item, as JSON.")
]
SamplesDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Write every item's prompt, answer or conversation, and score below DIR."),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", help="Items of each suite and split.", show_default="all", min=1)
]
Retries = Annotated[int, typer.Option(metavar="N", help="How often an unanswered question is asked again.", min=0)]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="How long a server's answer may take.", min=0.001)]


def evaluate(
    model: Model,
    suite: SuiteNames,
    json_: JsonFile = None,
    samples: SamplesDir = None,
    dtype: Annotated[Dtype, typer.Option(help="The dtype that the model is loaded in.")] = "float32",
    batch_size: Annotated[int, typer.Option(metavar="N", help="Prompts at a time.", min=1)] = 100,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.")] = "cpu",
    limit: Limit = None,
    backend: Annotated[Backend, typer.Option(help="What runs the model.")] = "transformers",
    url: Url = None,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Questions to a server at a time.", min=1)] = 8,
    retries: Retries = 5,
    timeout: Timeout = 300.0,
) -> None:
    """Evaluate one model on suites, on their validation and test splits."""
    from evaluation.backends.served import Endpoint
    from evaluation.suites import load_suite
    from flows.cli.display import print_scores
    from rammerge.system.atomic import write_json
    from rammerge.system.redaction import without_credentials

    if (url is not None) != (backend == "openai"):
        raise InputError("--url, a server's address, and --backend openai go together; give both or neither")
    suites = [load_suite(name, progress=say) for name in suite]
    if url is not None:
        results = _there(Endpoint(url, model, concurrency, retries, timeout), suites, limit, samples)
    elif backend == "vllm":
        results = _by_vllm(model, suites, dtype=dtype, concurrency=concurrency, limit=limit, out=samples)
    else:
        results = _here(model, suites, dtype=dtype, batch_size=batch_size, device=device, limit=limit, out=samples)
    print_scores(f"{model} ({without_credentials(url) if url else dtype})", results)
    if json_ is not None:
        write_json(json_, [result.to_json() for result in results.values()])


def _here(
    model: str,
    suites: "list[Suite]",
    *,
    dtype: str,
    batch_size: int,
    device: str,
    limit: int | None,
    out: Path | None,
) -> "Results":
    from evaluation.runners.harness import evaluate_model
    from rammerge.checkpoints.digest import digest_checkpoint
    from rammerge.checkpoints.fetch import fetch

    checkpoint = fetch(model, progress=say)
    return evaluate_model(
        checkpoint.path,
        suites,
        dtype=dtype,
        batch_size=batch_size,
        device=device,
        limit=limit,
        out=out,
        model_digest=digest_checkpoint(checkpoint).digest,
        progress=say,
    )


def _by_vllm(
    model: str, suites: "list[Suite]", *, dtype: str, concurrency: int, limit: int | None, out: Path | None
) -> "Results":
    from evaluation.backends.serving import vllm
    from evaluation.runners.served import evaluate_served
    from rammerge.checkpoints.digest import digest_checkpoint
    from rammerge.checkpoints.fetch import fetch

    checkpoint = fetch(model, progress=say)
    known = {"dtype": dtype, "device": "vllm", "backend": "vllm", "model_digest": digest_checkpoint(checkpoint).digest}
    with vllm(checkpoint.path, dtype=dtype, concurrency=concurrency) as endpoint:
        return evaluate_served(endpoint, suites, limit=limit, out=out, known=known, progress=say)


def _there(endpoint: "Endpoint", suites: "list[Suite]", limit: int | None, out: Path | None) -> "Results":
    from evaluation.runners.served import evaluate_served

    return evaluate_served(endpoint, suites, limit=limit, out=out, progress=say)
