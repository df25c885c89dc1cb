"""The directory of a registered version: hard links to the model's files, and the description that MLflow loads."""

import os
import shutil
import threading
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from rammerge.checkpoints.digest import digest_file
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from rammerge.system.reading import read_json_object
from tasks.records.connection import client
from tasks.records.files import list_files, local_path
from tasks.records.scratch import scratch
from tasks.runtime.models import call_beside_models

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

ARTIFACT = "model"
PROMPT = "1 + 1 ="
_NEEDED = ("accelerate", "numpy", "safetensors", "tokenizers", "torch", "transformers")


class Laid(NamedTuple):
    """A version's files in their place: where, and the SHA-256 of their list."""

    source: str
    files: str


def lay(run: "Run", mlflow: "MlflowClient", model: Path) -> Laid:
    """Put `model` into the run's artifacts in the layout that MLflow loads.

    One process at a time does it, and removes first what one that was killed has left.
    """
    root = local_path(run.info.artifact_uri)
    with scratch(home() if root is None else root) as directory:
        made = directory / ARTIFACT
        _write_mlflow_model(made, model, run.info.run_name)
        hashes = {f"model/{file.relative_to(model)}": digest_file(file).sha256 for file in _files(model)}
        files = list_files(made, hashes)
        if root is None:
            mlflow.log_artifacts(run.info.run_id, str(made), ARTIFACT)
        else:
            shutil.rmtree(root / ARTIFACT, ignore_errors=True)  # of an attempt that was killed before registering
            made.rename(root / ARTIFACT)
    return Laid(f"{run.info.artifact_uri}/{ARTIFACT}", files)


def _files(model: Path) -> list[Path]:
    return [path for path in sorted(model.rglob("*")) if path.is_file()]


def expect_records(model: Path) -> None:
    """Begin what the end of a run takes seconds for: imports, MLflow's database, a first description; returns at once.

    The description is of any variant, and is thrown away. The next one takes a tenth of a second.
    """

    def prepare() -> None:
        with suppress(Exception):  # the steps that record and register will say it
            client()
            import_module("evaluation.report.figures")  # matplotlib
            with TemporaryDirectory() as directory:
                call_beside_models(describe, directory=str(Path(directory) / ARTIFACT), model=str(model))

    threading.Thread(target=prepare, daemon=True, name="rammerge-mlflow").start()


def _write_mlflow_model(directory: Path, model: Path, name: str) -> None:
    """Write the description in a process beside: MLflow imports pandas for it, which keeps a run waiting."""
    call_beside_models(describe, directory=str(directory), model=str(model))
    for file in _files(model):
        _link(file, directory / "model" / file.relative_to(model))
    call_beside_models(complete, directory=str(directory), name=name)


def complete(directory: str, name: str) -> None:
    """Add to a description what the model is called, and the size of all files that lie beside it now."""
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    file = Path(directory) / MLMODEL_FILE_NAME
    description = Model.load(str(file))
    description.flavors["transformers"]["source_model_name"] = name
    rest = [path for path in Path(directory).rglob("*") if path.is_file() and path.name != MLMODEL_FILE_NAME]
    description.model_size_bytes = sum(path.stat().st_size for path in rest)
    description.save(str(file))


def describe(directory: str, model: str) -> None:
    """Have MLflow describe the model, without its weights, which it would copy: the description is the same."""
    import mlflow.transformers

    described = Path(directory).with_name("described")
    for file in _files(Path(model)):
        if file.suffix not in (".safetensors", ".py"):
            beside = described / file.relative_to(model)
            beside.parent.mkdir(parents=True, exist_ok=True)
            _copy_without_code(file, beside)
    mlflow.transformers.save_model(
        str(described),
        directory,
        task="text-generation",
        signature=_signature(),
        input_example=PROMPT,
        pip_requirements=_requirements(),
    )


def _copy_without_code(file: Path, target: Path) -> None:
    """Copy a file, without the key that names code: for MLflow, transformers would ask whether to run it."""
    shutil.copyfile(file, target)
    if file.name in ("config.json", "tokenizer_config.json"):
        content = read_json_object(file)
        if content.pop("auto_map", None) is not None:
            write_json(target, content)


def _requirements() -> list[str]:
    """Return the packages that loading needs, pinned: a different version of transformers may not load the model."""
    # Without the label of a local build (2.13.0+cpu), because package indexes do not have it.
    return [f"{package}=={installed(package).partition('+')[0]}" for package in _NEEDED]


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text = Schema([ColSpec(DataType.string)])
    # MLflow passes only declared parameters to the pipeline. Without this one it stops after about twenty tokens.
    length = ParamSpec("max_new_tokens", DataType.long, 256)
    return ModelSignature(inputs=text, outputs=text, params=ParamSchema([length]))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # a different file system, or one without hard links
        shutil.copyfile(file, target)
