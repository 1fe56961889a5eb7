"""Published folders: what was changed in one is noticed, by name, and never used."""

import os
import shutil
from pathlib import Path

import pytest

from pipeline.data.manifest import read_manifest
from pipeline.files import read_json, write_json
from pipeline.harness.execute import StageFolders, execute
from pipeline.harness.published import (
    DamagedError,
    check_folder,
    complete_record,
    is_complete,
    publish,
    read_record,
    write_record,
)
from pipeline.harness.verify import main as verify
from pipeline.settings import Runtime
from stages.unfreeze import STAGE as UNFREEZE
from tests.conftest import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "artifacts" / "unfreeze"
    (made / "snapshots").mkdir(parents=True)
    (made / "plan.json").write_text("{}")
    (made / "snapshots" / "cycle-1").write_bytes(b"weights")
    write_record(made, complete_record(made, {"stage": "unfreeze", "settings": {"seed": 1}}))
    return made


def test_what_was_written_is_whole(folder: Path, tmp_path: Path) -> None:
    assert is_complete(folder)
    assert read_record(folder)["settings"] == {"seed": 1}
    for _ in range(2):
        check_folder(folder, state=tmp_path / ".unfreeze")


@pytest.mark.parametrize("name", ["plan.json", "snapshots/cycle-1"])
def test_a_changed_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    check_folder(folder, state=tmp_path / ".unfreeze")
    (folder / name).write_bytes(b"other!!")
    with pytest.raises(DamagedError, match=f"{name} is not what was published: remove .*unfreeze and type `dvc repro`"):
        check_folder(folder, state=tmp_path / ".unfreeze")
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=name):
        check_folder(folder, state=tmp_path / ".unfreeze")
    assert not is_complete(folder)


def test_a_change_that_keeps_size_and_time_is_seen_by_content(folder: Path, tmp_path: Path) -> None:
    check_folder(folder, state=tmp_path / ".unfreeze")
    file = folder / "snapshots" / "cycle-1"
    times = file.stat()
    file.write_bytes(b"wEights")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    check_folder(folder, state=tmp_path / ".unfreeze")
    with pytest.raises(DamagedError, match="cycle-1"):
        check_folder(folder, state=tmp_path / ".unfreeze", by_content=True)


@pytest.mark.parametrize("damage", ["{", "", '{"digest": "x"}', "[]", "\x00"])
def test_a_damaged_record_says_how_to_make_the_folder_again(folder: Path, damage: str) -> None:
    (folder / "stage.json").write_text(damage)
    with pytest.raises(DamagedError, match=r"stage.json.*`dvc repro`"):
        read_record(folder)


def test_a_changed_setting_in_the_record_is_seen(folder: Path) -> None:
    record = read_json(folder / "stage.json")
    write_json(folder / "stage.json", record | {"settings": {"seed": 2}})
    with pytest.raises(DamagedError):
        read_record(folder)


def test_publishing_replaces_the_folder_and_leaves_nothing_beside_it(folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "scratch" / "out"
    shutil.copytree(folder, new)
    (new / "plan.json").write_text("[]")
    publish(new, folder)
    assert (folder / "plan.json").read_text() == "[]"
    assert [p.name for p in folder.parent.iterdir()] == ["unfreeze"]
    assert not new.exists()


def test_a_folder_on_another_mount_is_copied(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(source: Path, target: Path) -> Path:
        if source.parent != target.parent:
            raise OSError(18, "Invalid cross-device link", str(source))
        os.replace(source, target)  # noqa: PTH105 (the method is what is replaced)
        return target

    new = tmp_path / "scratch" / "out"
    shutil.copytree(folder, new)
    monkeypatch.setattr(Path, "replace", across)
    publish(new, folder)
    assert is_complete(folder)
    assert [p.name for p in folder.parent.iterdir()] == ["unfreeze"]


@pytest.mark.xdist_group("recipe")
def test_a_stage_uses_no_damaged_input(recipe: Run, tmp_path: Path, runtime: Runtime) -> None:
    folders = {name: recipe.folder(name) for name in UNFREEZE.upstream}
    folders["precompute"] = Path(shutil.copytree(folders["precompute"], tmp_path / "precompute"))
    file = folders["precompute"] / "backbone.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=r"precompute: backbone\.safetensors is not what was published"):
        execute(UNFREEZE, recipe.params, runtime, StageFolders(folders, tmp_path / "out", tmp_path / ".unfreeze"))
    assert not (tmp_path / "out").exists()


@pytest.mark.xdist_group("recipe")
def test_verify_names_every_changed_folder_and_image(
    recipe: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recipe.artifacts, "artifacts")
    pictures = Path(shutil.copytree(read_manifest(recipe.folder("ingest")).root, tmp_path / "pictures"))
    kept = tmp_path / ".unfreeze" / "contents"
    kept.mkdir(parents=True)
    assert verify([], prog="unfreeze verify") == 0
    assert kept.exists()
    assert "72 images are what artifacts/ingest saw" in capfd.readouterr().err

    source = tmp_path / "artifacts" / "ingest"
    write_json(source / "source.json", {"root": str(pictures)})
    write_record(source, complete_record(source, read_record(source)))
    (pictures / "bars" / "03.png").write_bytes(b"")
    (pictures / "dots" / "04.jpg").unlink()
    (tmp_path / "artifacts" / "unfreeze" / "plan.json").write_text("{}")
    assert verify([], prog="unfreeze verify") == 1
    said = capfd.readouterr().err
    assert all(name in said for name in ("bars/03.png", "dots/04.jpg", "artifacts/unfreeze: plan.json"))
    assert not kept.exists()  # the next `dvc repro` looks at every image again
    assert verify(["nowhere"], prog="unfreeze verify") == 1
