"""Exported files answer as the model folder does, say how images are prepared, and are refused where they do not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.decode import fit_image
from pipeline.deployment import export as exporting
from pipeline.deployment.export import export, main
from pipeline.deployment.exported import read_exported
from pipeline.deployment.predict import main as predict_main
from pipeline.evaluation.prediction import CPU, Predictor, load_predictor
from pipeline.files import copy_file
from tests.pipeline.deployment.conftest import CLASSES, SIZE, make_model_folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, photos: list[Path]) -> dict[str, Path]:
    """The model as one file of each kind."""
    folder = tmp_path_factory.mktemp("exported")
    files = {suffix: folder / f"m{suffix}" for suffix in (".pt2", ".onnx")}
    for file in files.values():
        parity = export(model_folder, file, photos, images="of a test")
        assert parity.num_images == len(photos)
        assert parity.largest < 1e-5
    return files


pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("export"),
    # torch's exporter uses names that torch itself has deprecated.
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_file_answers_as_the_folder_does(
    exported: dict[str, Path], suffix: str, model_folder: Path, photos: list[Path]
) -> None:
    folder, file = load_predictor(model_folder), read_exported(exported[suffix], CPU)
    assert file.card.classes == CLASSES
    for tta in (False, True):
        for calibrated in (False, True):
            expected = folder.predict(photos, tta=tta, calibrated=calibrated)
            np.testing.assert_allclose(file.predict(photos, tta=tta, calibrated=calibrated), expected, atol=1e-5)
    assert np.ptp(folder.predict(photos), axis=0).max() > 0.1  # the pictures differ for the model
    assert file.plain_calibration == folder.plain_calibration


def test_another_program_can_use_the_onnx_file(
    exported: dict[str, Path], model_folder: Path, photos: list[Path]
) -> None:
    session = onnxruntime.InferenceSession(str(exported[".onnx"]), providers=["CPUExecutionProvider"])
    known = session.get_modelmeta().custom_metadata_map
    size, inner, fit = json.loads(known["image_size"]), json.loads(known["inner_px"]), known["fit"]
    assert (size, fit, json.loads(known["classes"])) == (SIZE, "zoom", list(CLASSES))
    framing = load_predictor(model_folder).policy.framing
    assert (inner, framing.margin_px) == (framing.inner_px, json.loads(known["margin_px"]))
    pixels = np.stack([np.asarray(fit_image(Image.open(file).convert("RGB"), framing)) for file in photos])
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    [logits] = session.run(["logits"], {"images": images})
    probs = torch.from_numpy(logits / json.loads(known["temperature"])).softmax(1).numpy()
    np.testing.assert_allclose(probs, load_predictor(model_folder).predict(photos), atol=1e-5)


def test_predict_takes_the_file(
    exported: dict[str, Path], photos: list[Path], model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [*map(str, photos), "--format", "json", "--coverage", "0.7"]
    printed = []
    for model in (model_folder, exported[".onnx"], exported[".pt2"]):
        assert predict_main([str(model), *names]) == 0
        printed.append([json.loads(line) for line in capfd.readouterr().out.splitlines()])
    for line, *others in zip(*printed, strict=True):
        for other in others:
            assert other["probability"] == pytest.approx(line["probability"], abs=2e-6)
            assert {**other, "probability": 0} == {**line, "probability": 0}
    assert predict_main([str(exported[".onnx"]), *names, "--novelty"]) == 1
    assert "as exported files are" in capfd.readouterr().err


def test_a_file_that_differs_is_not_written(
    exported: dict[str, Path], photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_model_folder(tmp_path / "other", seed=1)

    def write_the_first_model(folder: Path, predictor: Predictor, out: Path) -> None:
        assert folder == other
        assert predictor.card.classes == CLASSES
        copy_file(exported[".pt2"], out)

    monkeypatch.setattr(exporting, "write_exported", write_the_first_model)
    with pytest.raises(
        ValueError, match=r"m.pt2 was not written: its probabilities .* on 8 images \(of a test\), more"
    ):
        export(other, tmp_path / "m.pt2", photos, images="of a test")
    assert not (tmp_path / "m.pt2").exists()
    export(other, tmp_path / "m.pt2", photos, images="of a test", tolerance=1.0)
    assert (tmp_path / "m.pt2").exists()


def test_an_ensemble_is_one_file(tmp_path: Path, photos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_model_folder(tmp_path / "two", members=2, mode="multi_scale")
    out = tmp_path / "m.pt2"
    assert main([str(folder), str(out), "--images", *map(str, photos)]) == 0
    assert "largest difference of a probability" in capfd.readouterr().out
    file = read_exported(out, CPU)
    np.testing.assert_allclose(file.predict(photos), load_predictor(folder).predict(photos), atol=1e-5)
    with pytest.raises(ValueError, match="leave out --tta, or predict with the model folder"):
        file.predict(photos, tta=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["gone", "m.onnx"], "gone is not a model folder"),
        (["MODEL", "m.pt2", "--images", "gone.jpg"], "none of 1 files (of gone.jpg) is a readable image"),
    ],
)
def test_what_cannot_be_exported_is_told(
    model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    model, out, *options = arguments
    assert main([model.replace("MODEL", str(model_folder)), str(tmp_path / out), *options]) == 1
    assert told in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main([str(model_folder), str(tmp_path / "m.zip")])
    assert "must end in .onnx or .pt2" in capfd.readouterr().err


def test_images_are_those_of_the_run_or_random_ones(model_folder: Path, tmp_path: Path) -> None:
    files, images = exporting.images_to_compare(model_folder, [], tmp_path)
    assert (len(files), images) == (200, "random ones; --images FOLDER takes real ones")
    spread = load_predictor(model_folder).predict(files[:40]).std(axis=0)
    assert spread.max() > 0.05


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a readable"):
        read_exported(tmp_path / name, CPU)
