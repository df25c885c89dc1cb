"""The directory of a registered version: hard links to the model's files, and the description that MLflow loads."""

import os
import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from rammerge.system.home import home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

ARTIFACT = "model"
PROMPT = "1 + 1 ="
_NEEDED = ("accelerate", "numpy", "safetensors", "tokenizers", "torch", "transformers")


def local_path(uri: str) -> Path | None:
    """Return the directory of a `file:` URI or a plain path, or None for artifacts that MLflow keeps elsewhere."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parsed.path) if parsed.scheme else uri)


def lay(run: "Run", mlflow: "MlflowClient", model: Path) -> str:
    """Put `model` into the run's artifacts in the layout that MLflow loads. Return its source for the registry."""
    root = local_path(run.info.artifact_uri)
    if root is None:
        with tempfile.TemporaryDirectory(dir=home()) as scratch:
            _write_mlflow_model(Path(scratch) / ARTIFACT, model, run.info.run_name)
            mlflow.log_artifacts(run.info.run_id, str(Path(scratch) / ARTIFACT), ARTIFACT)
    else:
        staging = root / f".{ARTIFACT}-{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        _write_mlflow_model(staging, model, run.info.run_name)
        shutil.rmtree(
            root / ARTIFACT, ignore_errors=True
        )  # left by an earlier attempt that was killed before it registered
        staging.rename(root / ARTIFACT)
    return f"{run.info.artifact_uri}/{ARTIFACT}"


def _write_mlflow_model(directory: Path, model: Path, name: str) -> None:
    import mlflow.transformers
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    directory.parent.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        # MLflow would copy the weights. Its description is the same for a model directory without them.
        described = (
            Path(scratch) / "model"
        )  # not the scratch directory: its mode would be copied, and keeps other users out
        for file in files:
            if file.suffix != ".safetensors":
                beside = described / file.relative_to(model)
                beside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, beside)
        mlflow.transformers.save_model(
            str(described),
            str(directory),
            task="text-generation",
            signature=_signature(),
            input_example=PROMPT,
            pip_requirements=_requirements(),
        )
    for file in files:
        _link(file, directory / "model" / file.relative_to(model))
    description = Model.load(str(directory / MLMODEL_FILE_NAME))
    description.flavors["transformers"]["source_model_name"] = name
    rest = [path for path in directory.rglob("*") if path.is_file() and path.name != MLMODEL_FILE_NAME]
    description.model_size_bytes = sum(path.stat().st_size for path in rest)
    description.save(str(directory / MLMODEL_FILE_NAME))


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
