"""Tables: what is wrong with one is told by line, and nothing in it is dropped in silence."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.data.found import SPLITS
from pipeline.data.ledger import LedgerLine, check_rejected
from pipeline.data.sources import open_source
from pipeline.data.table import Row, read_table
from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import Compose


def csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "table.csv").write_bytes(text.encode(encoding))
    return folder / "table.csv"


def jsonl(folder: Path, *rows: dict[str, Any], encoding: str = "utf-8") -> Path:
    (folder / "table.jsonl").write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode(encoding))
    return folder / "table.jsonl"


def refused(file: Path, said: str) -> None:
    with pytest.raises(SettingsError, match=f"data.root={file} .*{said}"):
        read_table(file, group=None)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (["cat"], r"is \['cat'\].*one label.*multi-label"),
        ({"name": "cat"}, r"is \{'name': 'cat'\}, a dict: it must be text or a number"),
        ("cat\0", "is .*, which no file or class can be called"),
        ("\ud800", "is .*, which no file or class can be called"),
    ],
)
def test_labels_that_are_no_text_are_refused_by_line(tmp_path: Path, label: object, said: str) -> None:
    good = {"path": "a.png", "label": "cat"}
    refused(jsonl(tmp_path, good, {"path": "b.png", "label": label}), f"line 2: the label of 'b.png' {said}")


@pytest.mark.parametrize("labels", [[["cat"], ["dog"]], [b"cat", b"dog"], [{"a": 1}, {"a": 2}]])
def test_labels_that_are_no_text_are_refused_by_row(tmp_path: Path, labels: list[Any]) -> None:
    parquet.write_table(pa.table({"path": ["a", "b"], "label": labels}), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", "row 1: the label of 'a' is ")


def test_labels_may_be_numbers(tmp_path: Path) -> None:
    rows = read_table(jsonl(tmp_path, *({"path": "a", "label": x} for x in (7, 0.5, True, None, " x "))), group=None)
    assert [row.label for row in rows] == ["7", "0.5", "True", "", "x"]


def test_a_row_without_a_path_is_named(tmp_path: Path, compose_conf: Compose) -> None:
    (tmp_path / "a").touch()
    rows: list[dict[str, Any]] = [
        {"path": "a", "label": "x"},
        {"file": "b", "label": "x"},
        {"path": None, "label": "x"},
    ]
    found = find(jsonl(tmp_path, *rows), compose_conf)
    assert sorted(f.problem for f in found) == ["", "no path: line 2 of table.jsonl", "no path: line 3 of table.jsonl"]


def find(file: Path, compose_conf: Compose) -> list[Any]:
    return [*open_source(settings(file, compose_conf), out=file.parent / "out").find()]


def settings(file: Path, compose_conf: Compose) -> Data:
    return read_settings(compose_conf("data=csv", f"data.root={file}"), source="x").data


def test_a_file_that_is_missing_is_named_by_line_and_folder(tmp_path: Path, compose_conf: Compose) -> None:
    (tmp_path / "a").touch()
    file = csv(tmp_path, "path,label\na,x\nb,x\nc\\d,x\n")
    problems = {f.path: f.problem for f in find(file, compose_conf)}
    assert problems == {
        "a": "",
        "b": "no such file: line 3 of table.csv",
        "c\\d": "no such file: line 4 of table.csv, with back-slashes where slashes must be",
    }
    rejected = [LedgerLine(path, "rejected", problem) for path, problem in problems.items() if problem]
    with pytest.raises(SettingsError) as error:
        check_rejected(rejected, settings(file, compose_conf), num_files=3)
    assert f"\n  paths are looked for in the table's folder, {tmp_path}\n  fix" in str(error.value)


def test_back_slashes_are_read_where_they_lead_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("cat/1.png", "odd\\name.png"):
        (tmp_path / name).touch()
    rows = read_table(csv(tmp_path, "path,label\ncat\\1.png,x\nodd\\name.png,x\n"), group=None)
    assert [row.path for row in rows] == ["cat/1.png", "odd\\name.png"]


def test_a_byte_order_mark_is_skipped_in_every_format(tmp_path: Path) -> None:
    expected = [Row("a", "x", "", "", "line 1")]
    assert read_table(jsonl(tmp_path, {"path": "a", "label": "x"}, encoding="utf-8-sig"), group=None) == expected
    assert read_table(csv(tmp_path, "path,label\na,x\n", "utf-8-sig"), group=None)[0].label == "x"


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "it is UTF-16 .*save it as UTF-8"),
        ("utf-16-le", "it is UTF-16 .*save it as UTF-8"),
        ("utf-32", "it is UTF-16 .*save it as UTF-8"),
        ("cp1252", r"line 3 is not UTF-8 \(byte 0xe2\) but most likely ANSI .*save it as UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str, said: str, suffix: str) -> None:
    lines = ['{"path": "a", "label": "b"}\n'] * 2 + ['{"path": "a", "label": "âgé"}\n']
    text = "".join(lines) if suffix == ".jsonl" else "path,label\na,b\na,âgé\n"
    (tmp_path / f"t{suffix}").write_bytes(text.encode(encoding))
    refused(tmp_path / f"t{suffix}", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('path,label\na,b\nb,"c" big\nc,d\n', "line 3: .*double quote"),
        ('path,label\na,b\nb,"c big\nc,d\n', "line 3: .*double quote"),
        ("path,label\na,b\na,cats, dogs\n", 'line 3 has 3 cells, but the header has 2: .*"cats, dogs"'),
        ("path,label,label\na,b,c\n", "its header has the column 'label' twice"),
        ("path,label\na,b\n" + "x" * 200_000 + ",c\n", "line 3: field larger than field limit"),
    ],
)
def test_a_line_that_is_no_csv_is_named(tmp_path: Path, text: str, said: str) -> None:
    refused(csv(tmp_path, text), said)


def test_cells_may_be_empty_or_hold_line_breaks(tmp_path: Path) -> None:
    rows = read_table(csv(tmp_path, 'path,label,,\n"a\nb",x,,,,\n\nc\nd,y\n'), group=None)
    assert [(row.path, row.label, row.place) for row in rows] == [
        ("a\nb", "x", "line 2"),
        ("c", "", "line 5"),
        ("d", "y", "line 6"),
    ]


def test_cells_that_we_wrote_are_read_as_they_were_meant(tmp_path: Path) -> None:
    rows = read_table(csv(tmp_path, "path,label\n'=a.png,'-x\n'b.png,-1\n"), group=None)
    assert [(row.path, row.label) for row in rows] == [("=a.png", "-x"), ("'b.png", "-1")]


@pytest.mark.parametrize("values", [("True", "False", ""), ("1", "0", ""), ("TRUE", "FALSE", "")])
def test_fastais_column_is_valid_is_a_split(tmp_path: Path, values: tuple[str, ...]) -> None:
    text = "path,label,is_valid\n" + "".join(f"{i},x,{value}\n" for i, value in enumerate(values))
    splits = [row.split for row in read_table(csv(tmp_path, text), group=None)]
    assert splits == ["valid", "train", ""]
    assert {*splits} - {""} <= {*SPLITS}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a,x,yes"], "line 2: the is_valid of 'a' is 'yes': it must be True .* rename the column"),
        (["a,x,1", "b,x,1"], "is_valid is true in every row"),
    ],
)
def test_a_column_is_valid_that_cannot_be_used_is_named(tmp_path: Path, rows: list[str], said: str) -> None:
    refused(csv(tmp_path, "\n".join(["path,label,is_valid", *rows])), said)


def test_two_columns_of_splits_are_refused(tmp_path: Path) -> None:
    refused(csv(tmp_path, "path,label,split,is_valid\na,x,train,True\n"), "has both split and is_valid")


@pytest.mark.parametrize("damage", [lambda d: d[:50], lambda d: d[:-30], lambda d: b"PAR1" + d[20:], lambda _: b""])
def test_a_damaged_parquet_file_is_one_error(tmp_path: Path, damage: Any) -> None:
    parquet.write_table(pa.table({"path": ["a"] * 50, "label": ["b"] * 50}), tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(damage((tmp_path / "t.parquet").read_bytes()))
    refused(tmp_path / "t.parquet", "cannot be read as a table")


def test_deep_json_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"path": "a", "label": ' + "[" * 100_000 + "\n")
    refused(tmp_path / "t.jsonl", "line 1 is not an object")
