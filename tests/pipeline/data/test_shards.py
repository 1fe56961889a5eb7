"""Shards: images in tar files give what the same images in files give, and whatever is wrong with one is named."""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline.data.augment import Policy
from pipeline.data.decode import Framing, decode
from pipeline.data.found import UNLABELLED, FoundFile
from pipeline.data.image_file import digest_image_file, image_file_state, is_image_file, open_image_file
from pipeline.data.images import open_images_of
from pipeline.data.manifest import ChangedImageError, Manifest, check_unchanged, read_manifest
from pipeline.data.register import Register
from pipeline.data.shard_index import write_index
from pipeline.data.shard_writer import ShardWriter
from pipeline.data.shards import INDEX, Member, ShardError, find_member, index_lines, read_index
from pipeline.data.sources import Folder, Source, Table, open_source, source_files
from pipeline.files import file_digest
from pipeline.harness.dag import run_stages
from pipeline.harness.data_fingerprint import fingerprint_source
from pipeline.harness.shards import main
from pipeline.harness.verify import _check_images
from pipeline.settings import Data, SettingsError, read_settings
from pipeline.workspace import Bar
from stages.registry import ALL
from tests.conftest import TINY, Compose
from tests.pipeline.data.test_images import IMAGENET, augment

SHARD_BYTES = 30_000
LOOSE = " unlabelled"


@pytest.fixture
def data(compose_conf: Compose, tmp_path: Path) -> Data:
    return read_settings(compose_conf("data=shards", f"data.root={tmp_path / 'shards'}"), source="x").data


def write(source: Source, out: Path, *, group: str | None = None, shard_bytes: int = SHARD_BYTES) -> Path:
    with closing(Register()) as found:
        found.add_found(source.find())
        ShardWriter(source.root, out, shard_bytes, group, Bar()).write(found)
    return out


def tar(file: Path, members: Mapping[str, bytes] | Sequence[str], *, form: int = tarfile.PAX_FORMAT) -> Path:
    """Write a tar file, as others would; returns its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as archive:
        for name in members:
            content = members[name] if isinstance(members, Mapping) else name.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000
            archive.addfile(info, io.BytesIO(content))
    return file.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def found_by_label(folder: Path, data: Data) -> dict[str, tuple[str, str | None]]:
    """What the source finds in a folder of shards, by the path within the shard."""
    write_index(folder, Bar())
    found = list(open_source(replace(data, root=str(folder)), out=folder).find())
    return {f.path.partition(".tar/")[2]: (f.label, f.split) for f in found if not f.problem}


@pytest.fixture(scope="module")
def shards(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the fixture `pictures`, in several shards."""
    return write(Folder(pictures), tmp_path_factory.mktemp("made") / "shards")


@pytest.fixture
def own(shards: Path, tmp_path: Path) -> Path:
    """A copy of `shards` that a test may change."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


# What they hold


def test_the_same_images_give_the_same_bytes_and_others_can_read_them(
    pictures: Path, shards: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pictures, tmp_path / "copy"))
    again = write(Folder(copy), tmp_path / "again")
    assert contents(again) == contents(shards)
    members = list(read_index(shards))
    assert len({m.shard for m in members}) > 2
    for shard in {m.shard for m in members}:
        assert (shards / shard).stat().st_size <= SHARD_BYTES + 24 * 1024
        with tarfile.open(shards / shard) as archive:
            held = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        assert held == {m.name: (pictures / m.name).read_bytes() for m in members if m.shard == shard}
    for m in members:
        assert open_image_file(shards / m.path).read() == (pictures / m.name).read_bytes()
        assert m.label == m.name.partition("/")[0]


def test_an_index_made_of_the_headers_is_the_one_that_was_written(shards: Path, own: Path) -> None:
    (own / INDEX).unlink()
    assert write_index(own, Bar()) == 72
    assert contents(own) == contents(shards)


def test_training_sees_the_same_bytes(pictures: Path, shards: Path, tmp_path: Path, compose_conf: Compose) -> None:
    """Splits, digests, activations with and without views, and augmented batches."""
    made = {}
    for name, root in (("folder", pictures), ("shards", shards)):
        params = compose_conf(*TINY, f"data={name}", f"data.root={root}", "augment=side_on", "precompute.views=1")
        made[name] = run_stages(ALL, params, tmp_path / name, only=("ingest", "augment_config", "precompute"))
    files, tars = (read_manifest(folder / "ingest") for folder in made.values())
    assert tars.root == shards
    assert [replace(s, path=s.path.partition(".tar/")[2]) for s in tars.samples] == list(files.samples)
    for name in ("activations-train", "activations-valid", "head"):
        a, b = (file_digest(folder / "precompute" / f"{name}.safetensors") for folder in made.values())
        assert a == b
    policy, order = Policy(augment(compose_conf, "side_on"), Framing(32, "zoom", "white")), [[9, 1, 30], [2, 8]]

    def draw(manifest: Manifest, workers: int) -> torch.Tensor:
        source = open_images_of(
            manifest, manifest.of("train"), policy.framing, normalisation=IMAGENET, workers=workers, policy=policy,
            hold="none",
        )  # fmt: skip
        return torch.cat([pixels for pixels, _ in source.batches(order, draw=1)])

    assert torch.equal(draw(files, 0), draw(tars, 2))
    assert _check_images(made["shards"] / "ingest") == []


def test_a_table_gives_labels_splits_and_groups(pictures: Path, tmp_path: Path, data: Data) -> None:
    table = tmp_path / "t" / "images.csv"
    shutil.copytree(pictures, table.parent)
    rows = [f"bars/{i:02d}.{'png' if i % 2 else 'jpg'},{'even' if i % 2 else 'odd'},,p{i // 4}" for i in range(24)]
    rows += ["dots/00.jpg,,unlabelled,", "dots/none.jpg,even,,p1"]
    table.write_text("\n".join(["path,label,split,patient", *rows]))
    source = Table(table.parent, table, "patient")
    write(source, tmp_path / "shards", group="patient")
    found = {f.path.partition(".tar/")[2]: f for f in open_source(replace(data, group="patient"), out=tmp_path).find()}
    assert found == {f.path: replace(f, path=found[f.path].path) for f in source.find() if not f.problem}
    assert found["dots/00.jpg"].split == UNLABELLED
    assert {f.group for f in open_source(data, out=tmp_path).find()} == {""}
    with pytest.raises(SettingsError, match=r"no column 'scene'; its column of groups is 'patient'"):
        open_source(replace(data, group="scene"), out=tmp_path)


def test_what_is_no_sample_is_in_the_ledger_and_a_class_may_begin_with_a_dot(
    pictures: Path, tmp_path: Path, data: Data
) -> None:
    root = Path(shutil.copytree(pictures, tmp_path / "calibres"))
    (root / "bars").rename(root / ".22")
    found = list(open_source(replace(data, root=str(write(Folder(root), tmp_path / "shards"))), out=root).find())
    assert sum(f.label == ".22" and not f.problem for f in found) == 24
    write_index(tar(tmp_path / "s" / "0.tar", ["cat/1", "dog/2", ".x/3", "4"]), Bar())
    source = open_source(replace(data, root=str(tmp_path / "s")), out=root)
    assert {f.path: (f.problem, f.ignored) for f in source.find()} == {
        "0.tar/cat/1": ("", False),
        "0.tar/dog/2": ("", False),
        "0.tar/.x/3": ("hidden", True),
        "0.tar/4": ("not in a class folder", True),
    }
    assert sorted(source.notes) == [
        f"not used of what is in the shards: 1 ({why})" for why in ("hidden", "not in a class folder")
    ]


# Shards that others wrote


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ({"0.tar": ["cat/1", "dog/a/2"], "1.tar": ["cat/3"]}, {"cat/1": "cat", "dog/a/2": "dog", "cat/3": "cat"}),
        ({"0.tar": ["./cat/1", "dog/2", ".x/3", "dog/._2", "dog/Thumbs.db", "4"]}, {"cat/1": "cat", "dog/2": "dog"}),
        ({"0.tar": ["all/photos/cat/1", "all/photos/dog/2"]}, {"all/photos/cat/1": "cat", "all/photos/dog/2": "dog"}),
        (
            {"0.tar": ["train/cat/1", "val/cat/2"], "1.tar": ["train/dog/3", "test/4"]},
            {"train/cat/1": "cat train", "val/cat/2": "cat valid", "train/dog/3": "dog train", "test/4": LOOSE},
        ),
        (
            {"train/0.tar": ["cat/1", "dog/2"], "val/0.tar": ["cat/3"], "unlabelled/0.tar": ["4", "cat/5"]},
            {"cat/1": "cat train", "dog/2": "dog train", "cat/3": "cat valid", "4": LOOSE, "cat/5": LOOSE},
        ),
    ],
    ids=["classes", "litter", "outer folders", "splits", "folders of shards"],
)  # fmt: skip
def test_classes_and_splits_follow_from_names(
    tmp_path: Path, data: Data, shards: dict[str, list[str]], expected: dict[str, str]
) -> None:
    for name, members in shards.items():
        tar(tmp_path / "s" / name, members)
    found = found_by_label(tmp_path / "s", data)
    assert {path: f"{label} {split}" if split else label for path, (label, split) in found.items()} == expected


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (["train/cat/1", "cat/2"], "train/ beside cat: put"),
        (["test/cat/1", "val/cat/2"], "test/, val/ but no train/"),
        (["cat/train/1", "cat/test/2", "dog/train/1"], r"inside the class folders \(cat/train/\)"),
        (["cat/1", "../2"], "'../2' reaches outside"),
        (["cat/1", "cat/1"], "'cat/1' is in it twice"),
        (["cat/a\tb"], "has a control character"),
    ],
)
def test_names_that_may_mean_several_things_are_refused(tmp_path: Path, members: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        write_index(tar(tmp_path / "s" / "0.tar", members), Bar())
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["0.tar"]


def test_archives_that_are_no_shards_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    with pytest.raises(SettingsError, match="holds no shards"):
        write_index(folder, Bar())
    with tarfile.open(folder / "0.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cat/1"))
    with pytest.raises(SettingsError, match=r"0\.tar\.gz is packed"):
        write_index(folder, Bar())
    (folder / "0.tar.gz").rename(folder / "0.tar")
    with pytest.raises(SettingsError, match=r"0\.tar cannot be used as a shard: it is packed"):
        write_index(folder, Bar())
    with tarfile.open(folder / "0.tar", "w") as archive:
        link = tarfile.TarInfo("cat/1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(SettingsError, match="'cat/1' is a link or a device"):
        write_index(folder, Bar())
    for size in (2**62, 2**70):
        large = tarfile.TarInfo("cat/1")
        large.size = size
        (folder / "0.tar").write_bytes(large.tobuf(tarfile.GNU_FORMAT))
        with pytest.raises(SettingsError, match=r"0\.tar cannot be used as a shard"):
            write_index(folder, Bar())
    content = (tar(folder / "0.tar", ["cat/1", "dog/2"]) / "0.tar").read_bytes()
    for cut in (700, 1300, 2048):
        (folder / "0.tar").write_bytes(content[:cut])
        with pytest.raises(SettingsError, match=r"0\.tar cannot be used as a shard: it is cut off"):
            write_index(folder, Bar())


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_odd_members_are_read(tmp_path: Path, data: Data, form: int) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(picture, "PNG")
    long = "x" * 90 if form == tarfile.USTAR_FORMAT else "long " * 40
    members = {f"cat/{long}.png": picture.getvalue(), "cat/é 猫.png": b"", "dog/#1 (2).png": picture.getvalue()}
    folder = tar(tmp_path / "s" / "0.tar", members, form=form)
    assert found_by_label(folder, data) == {name: (name[:3], None) for name in members}
    for name, content in members.items():
        assert digest_image_file(folder / "0.tar" / name) == hashlib.sha256(content).hexdigest()
    assert decode(folder / "0.tar" / "dog/#1 (2).png", background="white").image.size == (9, 9)
    with pytest.raises(ValueError, match=r"^empty file$"):
        decode(folder / "0.tar" / "cat/é 猫.png", background="white")


def test_every_path_is_found_and_no_other(tmp_path: Path) -> None:
    names = sorted(
        f"{stem}{end}" for stem in ("a", "a b", "a.tar/b", "é", "ab", "b", "a/b/c") for end in ("", "0", "-")
    )
    shard = tmp_path / "0.tar"
    shard.touch()
    members = [Member(f"0.tar/{name}", i, i) for i, name in enumerate(sorted(names, key=str.encode))]
    (tmp_path / INDEX).write_bytes(b"".join(index_lines(members, None)))
    assert list(read_index(tmp_path)) == members
    for m in members:
        assert find_member(str(tmp_path / m.path), str(shard)) == m
        for other in (f"{m.path}!", m.path[:-1] or "x"):
            if other not in {x.path for x in members}:
                with pytest.raises(ShardError, match="names no such file"):
                    find_member(str(tmp_path / other), str(shard))


def test_a_folder_named_like_a_shard_is_a_folder(pictures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "photos.tar"))
    with open_image_file(folder / "bars" / "01.png") as file:
        assert file.read() == (pictures / "bars" / "01.png").read_bytes()
    assert not is_image_file(folder / "bars" / "none.png")


# What may be wrong


def find(data: Data) -> list[FoundFile]:
    list(source_files(data))
    return list(open_source(data, out=Path()).find())


def test_an_index_that_is_not_of_these_shards_is_refused(own: Path, data: Data) -> None:
    index = (own / INDEX).read_bytes()
    lines = index.splitlines(keepends=True)
    for broken, said in (
        (b"", "line 1"),
        (index[1:], "line 1"),
        (index[:-1], "line 73"),
        (b"".join([*lines[:5], lines[6], lines[5], *lines[7:]]), "line 7"),
        (index.replace(b"\t512\t", b"\tx\t"), "line 2"),
    ):
        (own / INDEX).write_bytes(broken)
        with pytest.raises(SettingsError, match=rf"index\.tsv is damaged in {said}: remove it"):
            find(data)
    (own / INDEX).write_bytes(b"".join(lines[:4] + lines[5:]))
    with pytest.raises(SettingsError, match=r"00000\.tar is not the shard that index\.tsv was made of"):
        find(data)
    (own / INDEX).unlink()
    with pytest.raises(SettingsError, match=r"has no index\.tsv: write it with"):
        find(data)


def test_shards_that_are_not_those_of_the_index_are_refused(own: Path, data: Data) -> None:
    (own / "00000.tar").rename(own / "x")
    with pytest.raises(SettingsError, match=r"00000\.tar is not there, and index\.tsv names \d+ images in it"):
        find(data)
    (own / "x").rename(own / "00000.tar")
    tar(own / "other.tar", ["cat/1"])
    with pytest.raises(SettingsError, match=r"does not name: other\.tar"):
        find(data)
    (own / "other.tar").unlink()
    content = bytearray((own / "00001.tar").read_bytes())
    content[:10] = b"cats/01.p\0"
    (own / "00001.tar").write_bytes(content)
    with pytest.raises(SettingsError, match=r"00001\.tar cannot be used as a shard: it is damaged"):
        find(data)


def test_the_fingerprint_is_of_the_contents(own: Path, data: Data, tmp_path: Path) -> None:
    def fingerprint(root: Path) -> Any:
        return fingerprint_source(replace(data, root=str(root)))["fingerprint"]

    copy = Path(shutil.copytree(own, tmp_path / "copy", copy_function=shutil.copyfile))  # with other times
    (copy / "._00000.tar").write_bytes(b"macOS")
    assert fingerprint(copy) == fingerprint(own)
    index = (copy / INDEX).read_bytes()
    (copy / INDEX).write_bytes(index.replace(b"\tdots\t", b"\tdot\t", 1))
    assert fingerprint(copy) != fingerprint(own)
    (copy / INDEX).write_bytes(index)
    with (copy / "00001.tar").open("r+b") as file:
        file.seek(600)
        file.write(b"!")
    assert fingerprint(copy) != fingerprint(own)


def test_what_changed_since_ingest_is_named(own: Path) -> None:
    member = next(m for m in read_index(own) if m.shard == "00001.tar")
    path = own / member.path
    digest, state = digest_image_file(path), image_file_state(str(path))
    check_unchanged(path, digest)
    content = bytearray((own / member.shard).read_bytes())
    content[member.offset + member.size // 2] ^= 1
    (own / member.shard).write_bytes(content)
    assert image_file_state(str(path)) != state
    with pytest.raises(ChangedImageError, match=rf"{member.path} has changed since"):
        check_unchanged(path, digest)
    (own / member.shard).write_bytes(content[: member.offset])
    with pytest.raises(ChangedImageError, match=rf"{member.path}: it was there .* the shard ends before it"):
        check_unchanged(path, digest)
    with pytest.raises(ValueError, match="cannot be read: the shard ends before it"):
        decode(path, background="white")
    (own / INDEX).unlink()
    with pytest.raises(ChangedImageError, match=r"index\.tsv is gone"):
        check_unchanged(path, digest)
    assert image_file_state(str(path)) == "gone"
    (own / member.shard).unlink()
    with pytest.raises(ChangedImageError, match="No such file"):
        check_unchanged(path, digest)


# Writing them


def test_a_killed_writer_goes_on(pictures: Path, shards: Path, tmp_path: Path) -> None:
    copy, out = Path(shutil.copytree(pictures, tmp_path / "copy")), tmp_path / "out"
    write(Folder(copy), out)
    (out / INDEX).unlink()
    last = sorted(out.glob("*.tar"))[-1]
    last.unlink()
    kept = {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    changed = copy / "bars" / "01.png"
    os.utime(changed)  # its shard is written again
    write(Folder(copy), out)
    assert contents(out) == contents(shards)
    again = {p.name for p in out.glob("*.tar") if p.stat().st_mtime_ns != kept.get(p.name)}
    assert again == {"00000.tar", last.name}
    (out / INDEX).unlink()
    with pytest.raises(SettingsError, match="of other images: remove these"):
        write(Folder(copy), out, shard_bytes=10**9)
    write(Folder(copy), out, shard_bytes=SHARD_BYTES // 2)
    assert contents(out) == contents(write(Folder(copy), tmp_path / "smaller", shard_bytes=SHARD_BYTES // 2))


def test_the_command_says_what_it_did_and_what_is_wrong(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, out = Path(shutil.copytree(pictures, tmp_path / "copy")), tmp_path / "out"
    (copy / ".hidden").touch()

    def run(*arguments: Any) -> tuple[int, str]:
        status = main(list(map(str, arguments)), prog="unfreeze shards")
        return status, capsys.readouterr().err

    status, said = run("write", copy, out, "--shard-mb", 0.1)
    assert (status, "left out: 1 (hidden)" in said) == (0, True)
    assert f"72 images in 2 shards: data=shards data.root={out}" in said
    assert run("write", copy, out)[0] == 1
    assert "name a new folder" in run("write", copy, out)[1]
    assert "is inside" in run("write", copy, copy / "shards")[1]
    assert "names a column" in run("write", copy, tmp_path / "new", "--group", "patient")[1]
    assert "is there already" in run("index", out)[1]
    (out / INDEX).unlink()
    assert f"72 files in 2 shards: data=shards data.root={out}" in run("index", out)[1]
    assert "holds no image" in run("write", tmp_path / "out", tmp_path / "none")[1]
