"""Sources: folders, archives, tables and torchvision's datasets all end as files below one folder."""

import io
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.found import UNLABELLED, FoundFile
from pipeline.data.sources import SOURCES, check_source, open_source, typed_root
from pipeline.harness.data_fingerprint import fingerprint_source
from pipeline.settings import Data, SettingsError, read_settings
from tests.conftest import CLASSES, PROJECT, Compose


@pytest.fixture
def data(compose_conf: Compose) -> Data:
    return read_settings(compose_conf("data=folder", "data.root=x"), source="x").data


def find(data: Data, out: Path) -> list[FoundFile]:
    source = open_source(data, out=out)
    found = list(source.find())
    assert all((source.root / f.path).exists() for f in found)
    return found


def per_class(found: list[FoundFile]) -> Counter[str]:
    return Counter(f.label for f in found if not f.problem)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "validation", "testing")])
def test_split_folders_have_many_names(tmp_path: Path, pictures: Path, data: Data, names: tuple[str, ...]) -> None:
    for name in names:
        shutil.copytree(pictures, tmp_path / name)
    found = find(replace(data, root=str(tmp_path)), tmp_path)
    assert Counter(f.split for f in found) == {"train": 72, "valid": 72, "test": 72}


def test_a_test_folder_without_classes_is_unlabelled(tmp_path: Path, pictures: Path, data: Data) -> None:
    shutil.copytree(pictures, tmp_path / "train")
    shutil.copytree(pictures / "bars", tmp_path / "test")
    (tmp_path / "labels.csv").touch()
    found = find(replace(data, root=str(tmp_path)), tmp_path)
    assert Counter((f.split, f.label != "") for f in found if not f.problem) == {
        ("train", True): 72,
        (UNLABELLED, False): 24,
    }
    assert [f.path for f in found if f.problem] == ["labels.csv"]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("train", "val", "valid"), "two folders for valid"),
        (("valid", "test"), "no train/"),
        (("train", "x"), "beside x"),
    ],
)
def test_ambiguous_layouts_are_refused(tmp_path: Path, data: Data, folders: tuple[str, ...], said: str) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    with pytest.raises(SettingsError, match=said):
        find(replace(data, root=str(tmp_path)), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
@pytest.mark.parametrize("below", [None, "photos"])
def test_archives_are_unpacked_into_the_artifact(
    tmp_path: Path, pictures: Path, data: Data, kind: str, below: str | None
) -> None:
    base = tmp_path / "in"
    shutil.copytree(pictures, base / (below or "."), dirs_exist_ok=True)
    file = shutil.make_archive(str(tmp_path / "photos"), kind, base)
    given = replace(data, root=file)
    assert per_class(find(given, tmp_path / "out")) == dict.fromkeys(CLASSES, 24)
    assert typed_root(given) is None


def write_zip(file: Path, member: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, b"x")


def write_tar(file: Path, member: str, *, link: str | None = None) -> None:
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(member)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        else:
            info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))


@pytest.mark.parametrize("member", ["../escaped.png", "/tmp/escaped.png", "a/../../escaped.png", "..\\escaped.png"])
def test_zip_members_outside_the_folder_are_refused(tmp_path: Path, data: Data, member: str) -> None:
    write_zip(tmp_path / "x.zip", member)
    with pytest.raises(SettingsError, match="reaches outside"):
        find(replace(data, root=str(tmp_path / "x.zip")), tmp_path / "out")
    assert not list(tmp_path.rglob("escaped.png"))


@pytest.mark.parametrize(
    ("member", "link", "said"),
    [
        ("../escaped.png", None, "reaches outside"),
        ("/tmp/escaped.png", None, "reaches outside"),
        ("a/x.png", "/etc/passwd", "is a link or a device"),
        ("x", "../../y", "is a link or a device"),
        ("a/x.png", "b/y.png", "is a link or a device"),  # chains of links can lead out of any folder
    ],
)
def test_tar_members_outside_the_folder_are_refused(
    tmp_path: Path, data: Data, member: str, link: str | None, said: str
) -> None:
    write_tar(tmp_path / "x.tar", member, link=link)
    with pytest.raises(SettingsError, match=f"cannot be unpacked: .*{said}"):
        find(replace(data, root=str(tmp_path / "x.tar")), tmp_path / "out")
    assert not list(tmp_path.rglob("escaped.png"))


def test_a_tar_with_a_device_is_refused(tmp_path: Path, data: Data) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        device = tarfile.TarInfo("a/null")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    with pytest.raises(SettingsError, match="'a/null' is a link or a device"):
        find(replace(data, root=str(tmp_path / "x.tar")), tmp_path / "out")


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, data: Data, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 or not")
    with pytest.raises(SettingsError, match="cannot be unpacked"):
        find(replace(data, root=str(tmp_path / name)), tmp_path / "out")


ROWS = [
    {"path": "bars/00.jpg", "label": "bars", "split": "train", "patient": "7"},
    {"path": "bars/01.png", "label": "bars", "split": "Validation", "patient": "7"},
    {"path": "dots/00.jpg", "label": "dots", "split": "", "patient": "8"},
    {"path": "dots/00.jpg", "label": "bars", "split": "", "patient": "8"},
    {"path": "dots/01.png", "label": "", "split": "test", "patient": "9"},
    {"path": "dots/02.jpg", "label": "", "split": "train", "patient": "9"},
]


def write_table(file: Path) -> None:
    columns = list(ROWS[0])
    match file.suffix:
        case ".csv" | ".tsv":
            comma = "," if file.suffix == ".csv" else "\t"
            lines = [comma.join(columns), *(comma.join(row.values()) for row in ROWS)]
            file.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
        case ".jsonl":
            file.write_text("\n".join(json.dumps(row) for row in ROWS))
        case ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.Table.from_pylist(ROWS), file)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_table_with_several_labels_per_image_is_refused_by_name(tmp_path: Path, data: Data, suffix: str) -> None:
    rows = [{"path": "a.png", "label": ["cat"]}, {"path": "b.png", "label": ["cat", "dog"]}]
    file = tmp_path / f"table{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    with pytest.raises(SettingsError, match=r"the label of 'a\.png' is \['cat'\].*multi-label.* not supported"):
        find(replace(data, name="csv", root=str(file)), tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_tables_of_every_format_say_the_same(tmp_path: Path, pictures: Path, data: Data, suffix: str) -> None:
    root = Path(shutil.copytree(pictures, tmp_path / "x"))
    write_table(root / f"table{suffix}")
    given = replace(data, name="csv", root=str(root / f"table{suffix}"), group="patient")
    assert find(given, tmp_path) == [
        FoundFile("bars/00.jpg", "bars", "train", "7"),
        FoundFile("bars/01.png", "bars", "valid", "7"),
        FoundFile("dots/00.jpg", "dots", None, "8"),
        FoundFile("dots/00.jpg", "bars", None, "8", "listed under two labels"),
        FoundFile("dots/01.png", "", UNLABELLED, "9"),
        FoundFile("dots/02.jpg", "", UNLABELLED, "9", "no label"),
    ]
    assert typed_root(given) == str(root)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na,b\n", "no column 'path'; it has"),
        ("path,label\na,b\n", "no column 'patient'"),
        ("path,label,patient,split\na,b,c,holdout\n", "split 'holdout' of a"),
        ('path,label,patient\n"a,b\n', "cannot be read as a table"),
        ("path,label,patient\n", "has no rows"),
        ("path;label;patient\na;b;c\n", "need commas between cells"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path: Path, data: Data, text: str, said: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(SettingsError, match=said):
        find(replace(data, name="csv", root=str(tmp_path / "table.csv"), group="patient"), tmp_path)


@pytest.mark.parametrize("line", ['{"path": ', '["a", "b"]'])
def test_a_bad_line_of_json_is_named(tmp_path: Path, data: Data, line: str) -> None:
    (tmp_path / "table.jsonl").write_text('{"path": "a", "label": "b"}\n' + line)
    with pytest.raises(SettingsError, match="line 2 is not an object"):
        find(replace(data, name="csv", root=str(tmp_path / "table.jsonl")), tmp_path)


def test_a_row_without_a_path_is_rejected(tmp_path: Path, data: Data) -> None:
    (tmp_path / "table.csv").write_text("path,label\n,b\n")
    assert find(replace(data, name="csv", root=str(tmp_path / "table.csv")), tmp_path)[0].problem


def torchvision_data(data: Data, name: str, root: Path) -> Data:
    return replace(data, name="torchvision", dataset=name, root=str(root))


def write_idx(file: Path, values: np.ndarray) -> None:
    """The format of MNIST: a magic number (type 8, dimensions), the shape, the bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes())


def test_a_set_of_arrays_is_written_out_once(tmp_path: Path, data: Data) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 28, 28), dtype=np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        write_idx(tmp_path / "FashionMNIST/raw" / f"{part}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / "FashionMNIST/raw" / f"{part}-labels-idx1-ubyte", labels)
    found = find(torchvision_data(data, "FashionMNIST", tmp_path), tmp_path)
    assert Counter(f.split for f in found) == {"train": 20, "test": 20}
    assert found[1].label == "Trouser"
    assert np.array_equal(np.asarray(Image.open(tmp_path / found[1].path)), pixels[1])
    file = tmp_path / found[0].path
    before = file.stat().st_mtime_ns
    assert find(torchvision_data(data, "FashionMNIST", tmp_path), tmp_path) == found
    assert file.stat().st_mtime_ns == before


def test_a_set_of_files_is_read_in_place(tmp_path: Path, pictures: Path, data: Data) -> None:
    shutil.copytree(pictures, tmp_path / "eurosat" / "2750")
    found = find(torchvision_data(data, "EuroSAT", tmp_path), tmp_path)
    assert per_class(found) == dict.fromkeys(CLASSES, 24)
    assert {f.split for f in found} == {None}
    assert found[0].path == "eurosat/2750/bars/00.jpg"


def test_without_a_network_the_message_says_what_to_put_where(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("<urlopen error Temporary failure in name resolution>")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(SettingsError) as error:
        find(torchvision_data(data, "EuroSAT", tmp_path / "sets"), tmp_path)
    assert "torchvision.datasets.EuroSAT(root, download=True)" in str(error.value)
    assert str(tmp_path / "sets") in str(error.value)


def test_an_unknown_set_is_refused_with_those_known(tmp_path: Path, data: Data) -> None:
    with pytest.raises(SettingsError, match="must be one of CIFAR10"):
        find(torchvision_data(data, "CIFAR11", tmp_path), tmp_path)


def read(compose_conf: Compose, *overrides: str) -> Data:
    return read_settings(compose_conf(*overrides), source="x").data


@pytest.mark.parametrize("name", [file.stem for file in sorted((PROJECT / "conf/data").glob("*.yaml"))])
def test_every_ready_source_needs_at_most_its_root(compose_conf: Compose, name: str) -> None:
    check_source(read(compose_conf, f"data={name}", *(["data.root=x"] if name in ("folder", "csv", "shards") else [])))
    if name in ("folder", "csv", "shards"):
        with pytest.raises(
            SettingsError, match=rf"data\.root is missing: data={name} needs the .* \(data\.root=path/to/"
        ):
            compose_conf(f"data={name}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"root": "photos"}, "data.root=photos has no effect with data=digits; choose data=folder"),
        ({"dataset": "CIFAR10"}, "data.dataset=CIFAR10 has no effect with data=digits; choose data=torchvision"),
        ({"group": "patient"}, "data.group=patient has no effect with data=digits; choose data=csv"),
        ({"name": "torchvision", "root": "x"}, "data.dataset is missing: data=torchvision needs its name"),
        ({"name": "torchvision"}, "data.root is missing: data=torchvision needs the folder that datasets are kept in"),
        (
            {"name": "folde"},
            "data.name=folde must be one of digits, folder, csv, shards, torchvision; did you mean folder?",
        ),
    ],
)
def test_a_setting_that_does_not_fit_the_source_is_named(
    compose_conf: Compose, changes: dict[str, Any], said: str
) -> None:
    data = replace(read(compose_conf), **changes)
    with pytest.raises(SettingsError) as error:
        check_source(data)
    assert said in str(error.value)


def test_an_unknown_source_is_refused_by_every_function(compose_conf: Compose, tmp_path: Path) -> None:
    data = replace(read(compose_conf), name="flickr")
    for call in (lambda: open_source(data, out=tmp_path), lambda: fingerprint_source(data), lambda: typed_root(data)):
        with pytest.raises(SettingsError, match=f"must be one of {', '.join(SOURCES)}$"):
            call()


@pytest.mark.parametrize("source", ["folder", "link", "csv", "archive", "torchvision"])
def test_a_changed_photo_changes_the_fingerprint(
    tmp_path: Path, pictures: Path, compose_conf: Compose, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    photos = Path(shutil.copytree(pictures, tmp_path / "photos"))
    chosen = {"csv": "data=csv", "torchvision": "data=eurosat"}.get(source, "data=folder")
    root = {"csv": "photos/table.csv", "archive": "photos.zip"}.get(source, "photos")
    if source == "link":
        (photos / "bars").rename(tmp_path / "elsewhere")
        (photos / "bars").symlink_to(tmp_path / "elsewhere")
    if source == "csv":
        (photos / "table.csv").write_text("path,label\nbars/01.png,bars\n")

    def fingerprint() -> dict[str, Any]:
        if source == "archive":
            shutil.make_archive("photos", "zip", photos)
        return fingerprint_source(read(compose_conf, chosen, f"data.root={root}"))

    before = fingerprint()
    if source != "archive":
        assert before == fingerprint()
    (photos / "bars" / "01.png").write_bytes((photos / "bars" / "03.png").read_bytes())
    assert fingerprint() != before


def test_a_source_without_files_has_a_fingerprint_of_its_settings(compose_conf: Compose) -> None:
    assert fingerprint_source(read(compose_conf)) == {"name": "digits", "root": None, "dataset": None}


def test_a_missing_folder_is_refused_and_a_table_is_sent_to_csv(compose_conf: Compose, tmp_path: Path) -> None:
    for root in ("no/such/folder", "table.csv"):
        data = read(compose_conf, "data=folder", f"data.root={tmp_path / root}")
        for call in (lambda d: fingerprint_source(d), lambda d: find(d, tmp_path)):
            with pytest.raises(SettingsError, match=f"data.root={tmp_path / root} is not a folder") as error:
                call(data)
            assert ("data=csv" in str(error.value)) == (root == "table.csv")


def test_settings_and_fingerprints_of_sources_load_no_decoder() -> None:
    code = "import sys, pipeline.data.sources; print(*{'numpy', 'PIL', 'torch', 'sklearn'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
