"""The directory of a registered version: the model's files by hard link, beside the description that MLflow loads."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

from rammerge.system.home import home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ARTIFACT = "model"


def local_path(uri: str) -> Path | None:
    """Return the directory of a `file:` URI or a plain path, or None for artifacts that MLflow keeps elsewhere."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parsed.path) if parsed.scheme else uri)


def lay(run: "Run", mlflow: "MlflowClient", model: Path) -> str:
    """Lay `model` into the run's artifacts in the layout that MLflow loads; return its source for the registry."""
    root = local_path(run.info.artifact_uri)
    if root is None:
        with tempfile.TemporaryDirectory(dir=home()) as scratch:
            _write_mlflow_model(Path(scratch) / ARTIFACT, model, run.info.run_name)
            mlflow.log_artifacts(run.info.run_id, str(Path(scratch) / ARTIFACT), ARTIFACT)
    else:
        staging = root / f".{ARTIFACT}-{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        _write_mlflow_model(staging, model, run.info.run_name)
        shutil.rmtree(root / ARTIFACT, ignore_errors=True)  # of an earlier attempt that was killed before registering
        staging.rename(root / ARTIFACT)
    return f"{run.info.artifact_uri}/{ARTIFACT}"


def _write_mlflow_model(directory: Path, model: Path, name: str) -> None:
    import mlflow.transformers
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    directory.parent.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        # MLflow would copy the weights; it writes the same description for a model directory without them.
        for file in files:
            if file.suffix != ".safetensors":
                beside = Path(scratch) / file.relative_to(model)
                beside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, beside)
        text = Schema([ColSpec(DataType.string)])
        mlflow.transformers.save_model(
            scratch,
            str(directory),
            task="text-generation",
            signature=ModelSignature(inputs=text, outputs=text),
            pip_requirements=["torch", "transformers"],
        )
    for file in files:
        _link(file, directory / "model" / file.relative_to(model))
    description = Model.load(str(directory / "MLmodel"))
    description.flavors["transformers"]["source_model_name"] = name
    description.save(str(directory / "MLmodel"))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, target)
