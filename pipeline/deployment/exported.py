"""Exported models: one file with the network and, as text, all that prediction needs beside it.

The network takes `images`, float32 [N, 3, size, size] from 0 to 1, normalises them, and gives `logits`, [N,
num_classes]. The text says how an image becomes such a square, and what the logits mean: see `describe`.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.data.normalisation import Normalisation
from pipeline.evaluation.prediction import FILES, Predictor, assemble_predictor
from pipeline.files import write_text
from pipeline.model.card import load_card

SUFFIXES = (".onnx", ".pt2")
INPUT, OUTPUT = "images", "logits"
IN_PT2 = "unfreeze.json"
"""Where a .pt2 file has the text; a .onnx file has it in its metadata."""
_FILES_KEY = "unfreeze.files"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""What the extra `onnx` installs."""
_UNCHANGED = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def describe(predictor: Predictor, folder: Path) -> dict[str, str]:
    """What is written into the file, by name, for any program to read; and the small files of the model folder."""
    card, framing = predictor.card, predictor.policy.framing
    known = {
        "input": f"{INPUT}: float32 [N, 3, {card.image_size}, {card.image_size}], RGB, sRGB from 0 to 1, upright",
        "output": f"{OUTPUT}: float32 [N, {len(card.classes)}]; probabilities are softmax(logits / temperature)",
        "classes": list(card.classes),
        "temperature": predictor.plain_calibration.temperature,
        "image_size": card.image_size,
        "fit": framing.fit,
        "margin_px": framing.margin_px,
        "inner_px": framing.inner_px,
        "background": framing.background,
        "resize": f"{framing.interpolation} with antialiasing to reduce, bicubic to enlarge",
        "mean": list(card.normalisation.mean),
        "std": list(card.normalisation.std),
        "normalised_inside": True,
        "arch": card.arch,
        "made_by": "unfreeze",
    }
    files = {name: (folder / name).read_text(encoding="utf-8") for name in FILES if (folder / name).is_file()}
    texts = {name: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for name, v in known.items()}
    return {**texts, _FILES_KEY: json.dumps(files, ensure_ascii=False)}


def read_exported(file: Path, device: torch.device) -> Predictor:
    """Read an exported file, to predict on `device`. Raises ValueError if `unfreeze export` did not write it.

    A .pt2 file can run code when it is read: torch's format allows that. A .onnx file cannot.
    """
    run, described = _open_onnx(file, device) if file.suffix == ".onnx" else _open_pt2(file, device)
    if _FILES_KEY not in described:
        raise ValueError(f"{file} does not say how its images are prepared: `unfreeze export` did not write it")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, text in json.loads(described[_FILES_KEY]).items():
            assert name in FILES, name
            write_text(folder / name, text)
        card = load_card(folder)
        model = _Program(run, file, card.image_size)
        inside = replace(card, normalisation=_UNCHANGED, precision="fp32")
        return assemble_predictor(folder, model, inside, device=device, novelty=None)


class _Program(nn.Module):
    """An exported network in a model's place."""

    def __init__(self, run: Callable[[Tensor], Tensor], file: Path, image_size: int) -> None:
        super().__init__()
        self._run, self._file, self._image_size = run, file, image_size

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self._image_size:
            raise ValueError(
                f"{self._file} takes images of {self._image_size} px, and this test-time augmentation has views of "
                f"{images.shape[-1]} px: leave out --tta, or predict with the model folder"
            )
        return self._run(images.contiguous())


def _open_onnx(file: Path, device: torch.device) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    require_onnx()
    import onnxruntime

    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    provider = providers.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"onnxruntime cannot use {device.type} here (--device cpu, or install onnxruntime-gpu)")
    try:
        session = onnxruntime.InferenceSession(str(file), providers=[provider])
    except Exception as error:  # onnxruntime has an exception class for each status, with no base of their own
        raise ValueError(f"{file} is not a readable ONNX file: {str(error).splitlines()[0]}") from error

    def run(images: Tensor) -> Tensor:
        [logits] = session.run([OUTPUT], {INPUT: images.cpu().numpy()})
        return torch.from_numpy(logits).to(images.device)

    return run, dict(session.get_modelmeta().custom_metadata_map)


def _open_pt2(file: Path, device: torch.device) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    from torch.export.passes import move_to_device_pass

    texts = {IN_PT2: ""}
    try:
        program = torch.export.load(file, extra_files=texts)
    except Exception as error:  # of many kinds: zip, JSON, keys, pickle
        raise ValueError(f"{file} is not a readable .pt2 file: {str(error).splitlines()[0]}") from error
    module = move_to_device_pass(program, device).module()
    described = json.loads(texts[IN_PT2] or "{}")
    return module.forward, described


def require_onnx() -> None:
    """Raise ValueError, which says what to install, if the extra `onnx` is missing."""
    from importlib.util import find_spec

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install -c constraints.txt -e '.[onnx]'")
