"""The trained model in MLflow: logged beside its row so that MLflow can load and serve it, registered, found again.

What is stored is our model folder, the code that reads it, and the versions of the packages that it needs. Nothing is
pickled. MLflow is imported only inside `reachable`.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.files import copy_file, read_json
from pipeline.tracking.content import MODEL_CARD
from pipeline.tracking.spec import RowSpec, sqlite_file, uri_from_here
from pipeline.tracking.store import StoreUnavailableError, reachable

NAME = "model"
"""Of the model within its run: `runs:/<id>/model`."""
CHAMPION = "champion"
"""The alias of the version that is used: `models:/<name>@champion`."""
LOADER = "pipeline.deployment.served"
"""The module that MLflow loads the folder with."""
CODE = Path(__file__).resolve().parents[1]
PACKAGES = (
    "mlflow", "numpy", "omegaconf", "pandas", "pi-heif", "pillow", "pydantic", "pyyaml",
    "safetensors", "scipy", "torch", "torchvision",
)  # fmt: skip
"""What the stored code imports."""
_MARK = "tta.json"
"""A file that shows a folder to be a model folder."""
_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNsaGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"
"""A gray PNG of 8 x 8 pixels."""
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where there is no run, model, version or alias of a name."""
_LONGEST_TEXT = 5000
"""Characters that MLflow's database keeps of a description."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: str
    run_id: str

    def __str__(self) -> str:
        return f"version {self.number} of {self.name}"


def model_folder(spec: RowSpec) -> Path | None:
    """The model folder among those of the stages, if there is one."""
    return next((f / "model" for f in spec.folders.values() if (f / "model" / _MARK).is_file()), None)


def log_model_once(spec: RowSpec, run_id: str) -> None:
    """Log the row's model, unless the row has none or it was logged before. Use inside `reachable`."""
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    folder, client = model_folder(spec), MlflowClient(tracking_uri=uri_from_here(spec.tracking_uri))
    if folder is None or _logged(client, run_id) is not None:
        return
    run = client.get_run(run_id)
    card = None if spec.drawn is None else spec.drawn / MODEL_CARD
    with tempfile.TemporaryDirectory() as scratch:
        model = client.create_logged_model(
            run.info.experiment_id, name=NAME, source_run_id=run_id, params=run.data.params, model_type="classifier"
        )
        _save(folder, Path(scratch) / NAME, run_id=run_id, model=model, card=card)
        client.log_model_artifacts(model.model_id, str(Path(scratch) / NAME))
    client.finalize_logged_model(model.model_id, "READY")
    _link_scores(client, run, model.model_id)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])  # last: now it counts as logged


def _save(folder: Path, target: Path, *, run_id: str, model: Any, card: Path | None) -> None:
    """Write the folder that MLflow loads."""
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, ColSpec, Object, Property

    text, number = DataType.string, DataType.double
    one = Object([Property("class", text), Property("probability", number)])
    outputs = [("class", text), ("probability", number), ("top", Array(one)), ("error", text)]
    signature = ModelSignature(
        inputs=Schema([ColSpec(text, "image")]),
        outputs=Schema([ColSpec(kind, name, required=False) for name, kind in outputs]),
        params=ParamSchema([ParamSpec("tta", DataType.boolean, False), ParamSpec("top_k", DataType.long, 5)]),
    )
    save_model(
        path=str(target),
        loader_module=LOADER,
        data_path=str(folder.resolve()),
        code_paths=[str(CODE)],
        signature=signature,
        input_example=pd.DataFrame({"image": [_EXAMPLE]}),
        pip_requirements=list(_requirements(folder)),
        mlflow_model=Model(
            artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id
        ),
    )
    if card is not None and card.is_file():
        copy_file(card, target / card.name)


def _requirements(folder: Path) -> Iterator[str]:
    """The packages as they are installed here, without what only tells one build from another (`+cpu`)."""
    card = folder / "model.json"
    uses_timm = card.is_file() and str(read_json(card)["arch"]).startswith("timm/")
    for name in (*PACKAGES, *(["timm"] if uses_timm else [])):
        with suppress(PackageNotFoundError):
            yield f"{name}=={version(name).partition('+')[0]}"


def _link_scores(client: Any, run: Any, model_id: str) -> None:
    """Show the row's scores, those without a `/` in their name, on the model's page too."""
    from mlflow.entities import Metric

    names = [name for name in run.data.metrics if "/" not in name]
    points = [client.get_metric_history(run.info.run_id, name)[-1] for name in names]
    metrics = [Metric(p.key, p.value, p.timestamp, p.step, model_id=model_id) for p in points]
    if metrics:
        client.log_batch(run.info.run_id, metrics=metrics)


def _logged(client: Any, run_id: str) -> str | None:
    """The id of the model that a run has logged."""
    outputs = client.get_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    return str(models[0].model_id) if models else None


class Registry:
    """The registered models in one store."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def register(self, run_id: str, name: str, *, description: str) -> Version | None:
        """The version that a run's model is registered as, made if there is none; None if the run has no model."""
        with reachable(self._uri):
            client = self._client()
            model_id = _logged(client, run_id)
            if model_id is None:
                return None
            for known in client.search_model_versions(f"name = '{name}'"):
                if known.run_id == run_id:
                    return _version(known)
            self._create_name(client, name)
            # Not models:/<id>, which MLflow would look up in the store that is set for the whole process.
            source = client.get_logged_model(model_id).artifact_location
            text = description[:_LONGEST_TEXT]
            return _version(client.create_model_version(name, source, run_id, model_id=model_id, description=text))

    def champion(self, name: str) -> Version | None:
        """The version that bears the alias, if one does."""
        with reachable(self._uri):
            from mlflow.exceptions import MlflowException

            try:
                return _version(self._client().get_model_version_by_alias(name, CHAMPION))
            except MlflowException as error:
                if error.error_code in _UNKNOWN:
                    return None
                raise

    def make_champion(self, version: Version) -> None:
        """Move the alias to a version."""
        with reachable(self._uri):
            self._client().set_registered_model_alias(version.name, CHAMPION, version.number)

    def note(self, version: Version, text: str) -> None:
        """Write beside a version why it is the champion, or is not."""
        with reachable(self._uri):
            self._client().set_model_version_tag(version.name, version.number, CHAMPION, text[:_LONGEST_TEXT])

    def artifact(self, run_id: str, path: str, scratch: Path) -> Path | None:
        """Download a file of a run; None if the run has none of this name."""
        with reachable(self._uri):
            from mlflow.exceptions import MlflowException

            try:
                return Path(self._client().download_artifacts(run_id, path, str(scratch)))
            except (MlflowException, OSError):
                return None

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri_from_here(self._uri))

    def _create_name(self, client: Any, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def download_model(model: str, scratch: Path, *, uri: str) -> Path:
    """Download a model that `models:/NAME@champion`, `models:/NAME/3` or `runs:/ID/model` names.

    Raises ValueError for any other form, FileNotFoundError if there is no store or no such model in it, and
    ConnectionError if it does not respond.
    """
    place = _read_place(model)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"{model}: {file} does not exist: no run has been logged there yet")
    try:
        with reachable(uri):
            from mlflow import MlflowClient
            from mlflow.artifacts import download_artifacts

            # Found here and not by MLflow, which looks for models:/ in the store that is set for the whole process.
            store = uri_from_here(uri)
            found = _locate(MlflowClient(tracking_uri=store), place)
            if found is not None:
                return Path(download_artifacts(found, dst_path=str(scratch), tracking_uri=store))
    except StoreUnavailableError as error:
        raise ConnectionError(f"{model}: {error}") from error
    raise FileNotFoundError(f"{model}: there is no such model in {uri}; `make ui` shows what there is")


_FORMS = (
    re.compile(r"runs:/(?P<run>\w+)/model"),
    re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)"),
    re.compile(r"models:/(?P<name>[^/@]+)/(?P<number>\d+)"),
)


def _read_place(model: str) -> dict[str, str]:
    for form in _FORMS:
        if found := form.fullmatch(model.rstrip("/")):
            return found.groupdict()
    raise ValueError(f"{model}: give models:/NAME@{CHAMPION}, models:/NAME/VERSION or runs:/ID/{NAME}")


def _locate(client: Any, place: dict[str, str]) -> str | None:
    """The address of a model's files; None if there is none of this name."""
    from mlflow.exceptions import MlflowException

    try:
        if "run" in place:
            model_id = _logged(client, place["run"])
            return str(client.get_logged_model(model_id).artifact_location) if model_id is not None else None
        number = place.get("number") or client.get_model_version_by_alias(place["name"], place["alias"]).version
        return str(client.get_model_version_download_uri(place["name"], number))
    except MlflowException as error:
        if error.error_code in _UNKNOWN:
            return None
        raise


def _version(found: Any) -> Version:
    return Version(str(found.name), str(found.version), str(found.run_id))
