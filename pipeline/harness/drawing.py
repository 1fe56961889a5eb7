"""Drawing a stage's pictures once, though they are wanted twice: when the stage is done, and in the report.

What was drawn last for each stage is kept in `.unfreeze/pictures/`, under a digest of the data, of the code that draws,
and of the libraries that it draws with. If one of them differs, or what is kept is damaged, they are drawn again.
"""

import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from pipeline.files import atomic_folder, copy_file, digest, folder_digest, read_json, write_json
from pipeline.harness.fingerprints import code_fingerprint
from pipeline.harness.published import read_record

TILES = "tiles"
"""The folder beside the pictures with single images for pages; see `pipeline.report.tiles`."""

Draw = Callable[[str, Mapping[str, Path], Path], object]

LIBRARIES = ("matplotlib", "numpy", "pillow", "torch", "torchvision")


def draw_once(stage: str, folders: Mapping[str, Path], out: Path, *, state: Path, draw: Draw) -> list[Path]:
    """Draw the pictures of `stage` into `out` with `draw`, or copy them if they were drawn before; returns them.

    `draw` is `pipeline.report.pictures.draw_stage`, which says what `folders` must hold and what it raises. `state` is
    `.unfreeze/`.
    """
    key, kept, lock = _key(stage, folders), state / "pictures" / stage, state / "locks" / f"pictures-{stage}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # jobs that run side by side draw the same stages
        if not _is_kept(kept, key):
            shutil.rmtree(kept, ignore_errors=True)
            with atomic_folder(kept) as draft:
                draw(stage, folders, draft / "drawn")
                write_json(draft / "key.json", [key, folder_digest(draft / "drawn")])
        pictures, tiles = (sorted((kept / "drawn").glob(found)) for found in ("*.png", f"{TILES}/*"))
        if pictures:
            out.mkdir(parents=True, exist_ok=True)
            for old in out.glob("*.png"):
                old.unlink()
            shutil.rmtree(out / TILES, ignore_errors=True)
        for tile in tiles:
            (out / TILES).mkdir(exist_ok=True)
            copy_file(tile, out / TILES / tile.name)
        return [copy_file(picture, out / picture.name) for picture in pictures]


def _key(stage: str, folders: Mapping[str, Path]) -> str:
    data = {name: read_record(folders[name])["digest"] for name in {stage, "ingest"} & folders.keys()}
    libraries = {name: version(name) for name in LIBRARIES}
    return digest([data, code_fingerprint("pipeline.report.pictures"), libraries])


def _is_kept(kept: Path, key: str) -> bool:
    try:
        known = read_json(kept / "key.json")
    except (OSError, ValueError):
        return False
    return bool(known == [key, folder_digest(kept / "drawn")])
