"""The model as MLflow stores, loads and serves it."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.deployment.models import open_predictor
from pipeline.deployment.predict import main as predict_main
from pipeline.evaluation.prediction import CPU, Predictor, load_predictor
from pipeline.tracking import RowSpec, publish_row, store_uri
from pipeline.tracking.models import CHAMPION, PACKAGES, Registry, download_model
from pipeline.tracking.store import reachable
from tests.pipeline.data.heic import heic
from tests.test_architecture import MODULES, imports

pytestmark = [
    # SQLAlchemy warns about MLflow's own table definitions when they are first imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.xdist_group("tracking"),
]


@dataclass(frozen=True)
class Published:
    """A row with a model, registered as `photos`."""

    uri: str
    run_id: str


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Published:
    home = tmp_path_factory.mktemp("store")
    stage, drawn = home / "artifacts" / "tta_evaluate", home / "artifacts" / "report"
    stage.mkdir(parents=True)
    drawn.mkdir()
    (stage / "model").symlink_to(model_folder)
    (stage / "stage.json").write_text(json.dumps({"stage": "tta_evaluate", "digest": "d"}))
    (stage / "predictions.csv").write_text("path,sha256,label,plain\n")
    (drawn / "MODEL_CARD.md").write_text("# A card")
    spec = RowSpec(
        params={"seed": 1},
        experiment="served",
        tracking_uri=store_uri(home),
        state_dir=home / ".unfreeze",
        root=home,
        folders={"tta_evaluate": stage},
        drawn=drawn,
    )
    run_id = publish_row(spec)
    assert run_id is not None
    registry = Registry(spec.tracking_uri)
    version = registry.register(run_id, "photos", description="# A card")
    assert version is not None
    registry.make_champion(version)
    return Published(spec.tracking_uri, run_id)


@pytest.fixture(scope="module")
def loaded(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model, as any program loads it that knows MLflow and nothing of this project."""
    with reachable(published.uri):
        from mlflow.pyfunc import load_model

        # Not by its name and mlflow.set_tracking_uri, which would name this store to all tests that follow.
        folder = tmp_path_factory.mktemp("loaded")
        return load_model(str(download_model(f"models:/photos@{CHAMPION}", folder, uri=published.uri)))


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return load_predictor(model_folder)


def as_text(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def test_what_is_stored_names_everything_and_runs_nothing(published: Published, loaded: Any, tmp_path: Path) -> None:
    described = loaded.metadata
    assert [column.name for column in described.get_input_schema().inputs] == ["image"]
    assert [column.name for column in described.get_output_schema().inputs] == ["class", "probability", "top", "error"]
    assert {p.name: p.default for p in described.get_params_schema().params} == {"tta": False, "top_k": 5}
    assert described.flavors["python_function"]["loader_module"] == "pipeline.deployment.served"
    folder = download_model(f"runs:/{published.run_id}/model", tmp_path, uri=published.uri)
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"MODEL_CARD.md", "data/model/model.safetensors", "code/pipeline/deployment/served.py"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pyc", ".pth"))]
    pinned = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert set(PACKAGES) <= pinned
    assert "+" not in (folder / "requirements.txt").read_text()
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert loaded.predict(pd.DataFrame(**example["dataframe_split"]))["error"].tolist() == [None]


def test_the_stored_code_needs_no_other_package_than_those_named() -> None:
    waiting, seen, others = ["pipeline.deployment.served"], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in MODULES and name not in seen:
            seen.add(name)
            waiting += [*imports(MODULES[name]), name.rpartition(".")[0]]
        elif name not in MODULES:
            others.add(name.partition(".")[0])
    distributions = {"PIL": "pillow", "yaml": "pyyaml", "pi_heif": "pi-heif"}
    needed = {distributions.get(name, name) for name in others - set(sys.stdlib_module_names) - {""}}
    needed -= {"sklearn", "timm"}  # for training on its digits; added for its own architectures
    assert needed - set(PACKAGES) == set()
    assert {"torch", "pillow", "pi-heif", "pandas"} <= needed
    assert set(PACKAGES) - needed == {"mlflow"}


def test_it_answers_as_predict_does(loaded: Any, predictor: Predictor, photos: list[Path]) -> None:
    for tta in (False, True):
        frame = pd.DataFrame({"image": [as_text(file) for file in photos]})
        found = loaded.predict(frame, params={"tta": tta, "top_k": 2})
        expected = predictor.predict(photos, tta=tta)
        assert found["class"].tolist() == [predictor.card.classes[i] for i in expected.argmax(axis=1)]
        np.testing.assert_allclose(found["probability"].tolist(), expected.max(axis=1), atol=1e-5)
        assert [len(top) for top in found["top"]] == [2] * len(photos)
    as_bytes = loaded.predict(pd.DataFrame({"image": [photos[0].read_bytes(), heic()]}))
    assert as_bytes["error"].tolist() == [None, None]


def test_runs_and_aliases_are_models_for_predict(
    published: Published, photos: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNFREEZE_TRACKING_URI", published.uri)
    for model in (f"models:/photos@{CHAMPION}", "models:/photos/1", f"runs:/{published.run_id}/model"):
        assert open_predictor(model, CPU).predict(photos).shape == (len(photos), 3)
    assert predict_main(["models:/photos@nobody", str(photos[0])]) == 1
    assert predict_main(["models:/nothing/1", str(photos[0])]) == 1
    assert predict_main([f"runs:/{'0' * 32}/model", str(photos[0])]) == 1
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all("there is no such model in sqlite:///" in error for error in errors)
    assert predict_main(["models:/photos", str(photos[0])]) == 1
    assert "give models:/NAME@champion, models:/NAME/VERSION or runs:/ID/model" in capfd.readouterr().err


@pytest.fixture(scope="module")
def server(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/photos@{CHAMPION}"]
    command += ["--env-manager", "local", "--port", str(port)]
    # A folder without this project: what serves is the code that was stored with the model.
    home, environment = tmp_path_factory.mktemp("elsewhere"), {**os.environ, "MLFLOW_TRACKING_URI": published.uri}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": "", "PATH": path_with(sys.executable)}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process, home / "log")
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def path_with(python: str) -> str:
    return f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path, *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(address: str, images: Sequence[object], **params: object) -> list[dict[str, Any]]:
    request = {"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}, "params": params}
    content = urllib.request.Request(address, json.dumps(request).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(content, timeout=120) as answered:
        predictions: list[dict[str, Any]] = json.load(answered)["predictions"]
        return predictions


@pytest.mark.slow
def test_the_server_answers_good_images_bad_ones_and_fifty_at_once(
    server: str, photos: list[Path], predictor: Predictor
) -> None:
    texts = [as_text(file) for file in photos]
    expected = predictor.predict(photos).max(axis=1)
    found = ask(server, texts, top_k=1)
    np.testing.assert_allclose([each["probability"] for each in found], expected, atol=1e-5)

    broken = base64.b64encode(photos[1].read_bytes()[:200]).decode()
    mixed = ask(server, [texts[0], "photo.jpg", broken, None, f"data:image/png;base64,{texts[2]}", ""])
    assert [bool(each["error"]) for each in mixed] == [False, True, True, True, False, True]
    assert mixed[1]["error"] == "not base64: give the content of an image file, not its name"
    assert mixed[2]["error"].startswith("damaged")
    assert mixed[5]["error"] == "empty file"
    assert mixed[4]["probability"] == pytest.approx(expected[2], abs=1e-5)
    assert ask(server, []) == []

    requests = [(texts[i % 8], i % 2 == 1) for i in range(50)]
    with ThreadPoolExecutor(50) as clients:
        together = list(clients.map(lambda r: ask(server, [r[0]], tta=r[1])[0]["probability"], requests))
    with_tta = predictor.predict(photos, tta=True).max(axis=1)
    alone = [with_tta[i % 8] if i % 2 else expected[i % 8] for i in range(50)]
    np.testing.assert_allclose(together, alone, atol=1e-5)
