"""The model as MLflow loads and serves it: image files as base64 text in, classes out.

MLflow imports this module by name (`tracking/models.py`), with the code that was stored beside the model; it loads our
model folder, in which nothing can run code. An image that cannot be read is a row with the reason, and the others of
its request are answered.
"""

import base64
import binascii
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.answers import Answer, answer
from pipeline.evaluation.prediction import Predictor, load_predictor
from pipeline.files import atomic_file
from pipeline.model.compute import find_device

COLUMN = "image"
"""The column of the input: a file's content, as base64 text (a data: URL too) or as bytes."""
RESULT = ("class", "probability", "top", "error")
TOP_K = 5
_DATA_URL = re.compile(r"data:[^,]*,")


class Served:
    """What MLflow calls. Requests may come at the same time."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._random_views = Lock()  # they are drawn from torch's one generator

    def predict(self, model_input: "pd.DataFrame", params: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """A row per image, see `RESULT`.

        Args:
            model_input: a column `image`.
            params: `tta`, whether to average over views of each image; `top_k`, how many classes `top` lists.
        """
        asked = {"tta": False, "top_k": TOP_K, **(params or {})}
        with tempfile.TemporaryDirectory() as scratch:
            answers = self._answer(_write_files(model_input[COLUMN], Path(scratch)), tta=bool(asked["tta"]))
        rows = [self._row(each, top_k=int(asked["top_k"])) for each in answers]
        return pd.DataFrame(rows, columns=list(RESULT), dtype=object)  # numbers as objects: JSON has null, and no NaN

    def _answer(self, files: list[Path | str], *, tta: bool) -> list[Answer]:
        readable = [file for file in files if isinstance(file, Path)]
        if tta:
            with self._random_views:
                known = iter(list(answer(self._predictor, readable, tta=True)))
        else:
            known = iter(list(answer(self._predictor, readable)))
        return [next(known) if isinstance(file, Path) else Answer(Path(), error=file) for file in files]

    def _row(self, each: Answer, *, top_k: int) -> list[Any]:
        if each.probs is None:
            return [None, None, None, each.error]
        best = np.argsort(-each.probs, kind="stable")[: max(1, top_k)]
        top = [{"class": self._predictor.card.classes[i], "probability": float(each.probs[i])} for i in best]
        return [top[0]["class"], top[0]["probability"], top, None]


def _write_files(cells: Iterable[object], folder: Path) -> list[Path | str]:
    """Write each image into a file, for the one decoder to read; or say why there is none."""
    files: list[Path | str] = []
    for i, cell in enumerate(cells):
        content = _content(cell)
        if isinstance(content, bytes):
            files.append(folder / str(i))
            with atomic_file(folder / str(i), flush=False) as file:
                file.write(content)
        else:
            files.append(content)
    return files


def _content(cell: object) -> bytes | str:
    """The bytes of an image file, or why there are none."""
    if isinstance(cell, bytes | bytearray):
        return bytes(cell)
    if not isinstance(cell, str):
        return "no image: give a file's content as base64 text"
    try:
        return base64.b64decode("".join(_DATA_URL.sub("", cell, count=1).split()), validate=True)
    except (binascii.Error, ValueError):
        return "not base64: give the content of an image file, not its name"


def _load_pyfunc(data_path: str) -> Served:
    """Load the model folder; MLflow calls it by this name."""
    return Served(load_predictor(Path(data_path), find_device(os.environ.get("UNFREEZE_DEVICE", "auto"))))
