"""`data.drop`: what a person lists is left out, and what is not there is named."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.dropped import check_drop, drop_listed
from pipeline.data.found import FoundFile
from pipeline.data.ingest import ingest
from pipeline.data.reader import read_facts
from pipeline.data.register import Register
from pipeline.data.sources import Folder, check_source
from pipeline.harness.data_fingerprint import fingerprint_source
from pipeline.settings import Data, SettingsError, read_settings
from pipeline.workspace import Bar
from tests.conftest import Compose

FOUND = [
    FoundFile("cat/a.jpg", "cat", None),
    FoundFile("cat/b, c.jpg", "cat", None),
    FoundFile("dog/ä.jpg", "dog", None),
]


@pytest.fixture
def data(compose_conf: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return replace(read_settings(compose_conf(), source="x").data, drop="drop.csv")


def test_listed_files_are_ignored_and_the_others_are_as_they_were(data: Data) -> None:
    rows = 'path,label,suggested\n"cat/b, c.jpg",cat,dog\n\ndog/ä.jpg,dog,cat\n'
    Path("drop.csv").write_text(rows, encoding="utf-8-sig")  # as spreadsheets save it
    first, *others = drop_listed(FOUND, data)
    assert first == FOUND[0]
    assert [f.path for f in others] == [f.path for f in FOUND[1:]]
    assert all(f.ignored and f.problem == "listed in data.drop=drop.csv" for f in others)


def test_without_a_list_nothing_is_left_out(data: Data) -> None:
    assert [*drop_listed(FOUND, replace(data, drop=None))] == FOUND
    Path("drop.csv").write_text("path,label\n")
    assert [*drop_listed(FOUND, data)] == FOUND


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path\ncat/a.jpg\ncat/x.jpg\nx.jpg\n",
            r"data\.drop=drop\.csv lists .* images: 'cat/x\.jpg', 'x\.jpg'; .*ledger",
        ),
        ("path\n" + "".join(f"{i}.jpg\n" for i in range(9)), r"'4\.jpg' and 4 more"),
        ("file\ncat/a.jpg\n", r"data\.drop=drop\.csv has no column 'path'; it has \['file'\]"),
        (None, r"data\.drop=drop\.csv is not a file .*data\.drop=null"),
    ],
    ids=["unknown", "many", "no column", "no file"],
)
def test_a_list_that_does_not_fit_is_refused(data: Data, text: str | None, said: str) -> None:
    if text is not None:
        Path("drop.csv").write_text(text)
    with pytest.raises(SettingsError, match=said):
        list(drop_listed(FOUND, data))


@pytest.mark.parametrize("drop", ["artifacts/cross_validate/suspects.csv", "./conf/../artifacts/suspects.csv"])
@pytest.mark.parametrize("check", [check_drop, check_source, fingerprint_source])
def test_the_pipelines_own_file_is_refused(data: Data, drop: str, check: Callable[[Data], Any]) -> None:
    Path("conf").mkdir()
    with pytest.raises(SettingsError, match=r"copy it out of artifacts/"):
        check(replace(data, drop=drop))


def test_the_fingerprint_changes_with_the_list(data: Data) -> None:
    seen = []
    for text in ("path\n", "path\na.png\n"):
        Path("drop.csv").write_text(text)
        seen.append(fingerprint_source(data))
    assert seen[0] != seen[1] == fingerprint_source(data)
    assert "drop" not in fingerprint_source(replace(data, drop=None))


def test_what_is_left_out_is_neither_read_nor_counted_as_rejected(data: Data, pictures: Path) -> None:
    names = [f"bars/{i:02d}.{'png' if i % 2 else 'jpg'}" for i in range(12)]
    Path("drop.csv").write_text("".join(f"{name}\n" for name in ("path", *names)))
    strict = replace(data, root=str(pictures), on_reject="fail", max_rejected=0.0)
    with closing(Register()) as register:
        register.add_found(drop_listed(Folder(pictures).find(), strict))
        paths = [*register.paths_to_read()]
        facts = read_facts(pictures, paths, background="white", workers=1, bar=Bar())
        result = ingest(register, facts, strict, seed=0)
        assert len(paths) == 60
        assert not {*paths} & {*names}
        ignored = [*result.register.ledger("ignored")]
        assert [line.path for line in ignored] == names
        assert {line.reason for line in ignored} == {"listed in data.drop=drop.csv"}
        assert result.register.count_used() == 60
