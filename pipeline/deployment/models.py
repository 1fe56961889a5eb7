"""Opens the model that a person names: a folder, one in the registry or of a run in MLflow, or an exported file."""

import os
import tempfile
from pathlib import Path

import torch

from pipeline.deployment.exported import SUFFIXES, read_exported
from pipeline.evaluation.prediction import Predictor, load_predictor

_IN_MLFLOW = ("models:/", "runs:/")


def open_predictor(model: str, device: torch.device) -> Predictor:
    """Load a model, ready to predict on `device`.

    Raises FileNotFoundError if it is not there, ValueError if it cannot be used, and ConnectionError if MLflow's store
    cannot be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = locate(model, Path(scratch))
        return read_exported(folder, device) if folder.suffix in SUFFIXES else load_predictor(folder, device)


def locate(model: str, scratch: Path) -> Path:
    """The model folder or exported file that `model` names; one in MLflow is downloaded into `scratch`."""
    if model.startswith(_IN_MLFLOW):
        from pipeline.tracking.models import download_model  # only these need what reaches MLflow
        from pipeline.tracking.spec import store_uri

        uri = store_uri(Path.cwd(), os.environ.get("UNFREEZE_TRACKING_URI"))
        return _inside_mlflow(download_model(model, scratch, uri=uri))
    path = Path(model).expanduser()
    if path.suffix in SUFFIXES and not path.is_file():
        raise FileNotFoundError(f"{model}: there is no such file; `unfreeze export` makes one")
    return _inside_mlflow(path)


def _inside_mlflow(folder: Path) -> Path:
    """Our model folder within the one that MLflow keeps it in; any other path itself."""
    return folder / "data" / "model" if (folder / "MLmodel").is_file() else folder
