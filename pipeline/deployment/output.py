"""Answers as text: an aligned table for people, CSV and JSON lines for programs."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cells import to_cell
from pipeline.evaluation.answers import Answer
from pipeline.evaluation.calibration import class_sets
from pipeline.printable import printable

_LONGEST_PADDED = 72
"""Longer file names push their own line to the right, and no other."""


@dataclass(frozen=True)
class Shown:
    """What is shown of each answer."""

    classes: Sequence[str]
    top_k: int = 1
    """How many of the most probable classes."""
    highest_score: float | None = None
    """Of a class in the set, see `calibration.threshold`; None: no sets."""
    novelty: bool = False


class Format(ABC):
    """Writes a header, and then each answer as a line."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    @abstractmethod
    def header(self) -> str:
        """The lines before the first answer."""

    @abstractmethod
    def line(self, answer: Answer) -> str:
        """One answer, with its line break."""

    def _top(self, answer: Answer) -> list[tuple[str, float]]:
        assert answer.probs is not None
        best = np.argsort(-answer.probs, kind="stable")[: self._shown.top_k]
        return [(self._shown.classes[i], float(answer.probs[i])) for i in best]

    def _set(self, answer: Answer) -> list[str]:
        """The classes that it could be, the likeliest first."""
        assert answer.probs is not None
        assert self._shown.highest_score is not None
        inside = class_sets(answer.probs[None], self._shown.highest_score)[0]
        return [self._shown.classes[i] for i in np.argsort(-answer.probs, kind="stable") if inside[i]]


class Table(Format):
    """Aligned columns. Control characters in names are escaped: a file's name must not write to the terminal."""

    def __init__(self, shown: Shown, *, names: Iterable[str]) -> None:
        super().__init__(shown)
        self._names = min(max((len(_printable(name)) for name in names), default=0), _LONGEST_PADDED)
        self._class = max(5, *(len(_printable(name)) for name in shown.classes))

    def header(self) -> str:
        columns = ["class".ljust(self._class), "probability"]
        columns += [f"{'then':{self._class + 8}}"] * (min(self._shown.top_k, len(self._shown.classes)) - 1)
        columns += ["novelty"] if self._shown.novelty else []
        columns += ["could be"] if self._shown.highest_score is not None else []
        return f"{'file':{self._names}}  {'  '.join(columns)}".rstrip() + "\n"

    def line(self, answer: Answer) -> str:
        name = _printable(str(answer.file)).ljust(self._names)
        if answer.probs is None:
            return f"{name}  error: {_printable(answer.error)}\n"
        (best, probability), *others = self._top(answer)
        columns = [_printable(best).ljust(self._class), f"{probability:<11.4f}"]
        columns += [f"{_printable(other).ljust(self._class)}  {p:.4f}" for other, p in others]
        columns += [f"{answer.share_nearer:<7.3f}"] if self._shown.novelty else []
        columns += [_printable(" | ".join(self._set(answer)))] if self._shown.highest_score is not None else []
        return f"{name}  {'  '.join(columns)}".rstrip() + "\n"


class Csv(Format):
    """A row per file. What was not asked for has no column; `error` is always the last one."""

    def header(self) -> str:
        ranks = range(2, min(self._shown.top_k, len(self._shown.classes)) + 1)
        return _row(
            ["file", "class", "probability"]
            + [name for rank in ranks for name in (f"class_{rank}", f"probability_{rank}")]
            + (["novelty"] if self._shown.novelty else [])
            + (["set"] if self._shown.highest_score is not None else [])
            + ["error"]
        )

    def line(self, answer: Answer) -> str:
        if answer.probs is None:
            columns = self.header().count(",") - 1
            return _row([str(answer.file), *[""] * columns, answer.error])
        cells = [cell for name, p in self._top(answer) for cell in (name, f"{p:.6f}")]
        cells += [f"{answer.share_nearer:.6f}"] if self._shown.novelty else []
        cells += [" | ".join(self._set(answer))] if self._shown.highest_score is not None else []
        return _row([str(answer.file), *cells, ""])


class JsonLines(Format):
    """An object per file; `error` is null, or the other values are missing."""

    def header(self) -> str:
        return ""

    def line(self, answer: Answer) -> str:
        if answer.probs is None:
            return _object({"file": str(answer.file), "error": answer.error})
        top = self._top(answer)
        found: dict[str, object] = {"file": str(answer.file), "class": top[0][0], "probability": round(top[0][1], 6)}
        if self._shown.top_k > 1:
            found["top"] = [{"class": name, "probability": round(p, 6)} for name, p in top]
        if self._shown.novelty:
            assert answer.share_nearer is not None
            found["novelty"] = round(answer.share_nearer, 6)
        if self._shown.highest_score is not None:
            found["set"] = self._set(answer)
        return _object({**found, "error": None})


def open_format(name: str, shown: Shown, *, names: Iterable[str]) -> Format:
    """The format called `table`, `csv` or `json`, for files of these names."""
    if name == "table":
        return Table(shown, names=names)
    return Csv(shown) if name == "csv" else JsonLines(shown)


def _row(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([to_cell(cell) for cell in cells])
    return text.getvalue()


def _object(values: dict[str, object]) -> str:
    """A line of JSON; escaped where a name is not valid UTF-8, or holds control characters."""
    line = json.dumps(values, ensure_ascii=False)
    return f"{line if line.isprintable() else json.dumps(values)}\n"


def _printable(text: str) -> str:
    return printable(text, keep="")
