"""What a set of a million images costs each process, and what reading from shards costs beside reading files.

`python -m benchmarks.large_sets [--rows 1300000] [--features 2048] [--photos 4000] [--photos-from FOLDER]` writes a
manifest of that many rows, an index of as many images in shards, and a file of as many activations, which is sparse and
takes no room on the disk. Each is opened by a process of its own, as a stage opens it. Printed are its CPU seconds, its
peak memory, and what it holds at the end: of its own, and mapped from files, which the system shares among processes
and gives up where it needs room. Then photos are read in a random order, from files and from shards in turns: bytes
alone, and decoded.
"""

import argparse
import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.decode import Framing, decode_framed
from pipeline.data.image_file import open_image_file
from pipeline.data.manifest import Manifest, Sample, read_manifest, write_manifest
from pipeline.data.register import Register
from pipeline.data.shard_index import save_index
from pipeline.data.shard_writer import ShardWriter
from pipeline.data.shards import Member, find_member
from pipeline.data.sources import Folder
from pipeline.workspace import Bar

CLASSES, IN_SHARD, ROUNDS = 1000, 2000, 5
BATCH_SIZE, DRAWN, LOOK_UPS = 256, 200, 20_000
FRAMING = Framing(224, "zoom", "white")


def main() -> None:
    """Measure everything, each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_300_000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--photos-from", type=Path, help="a folder of classes of JPEGs; default: noise of 500x375")
    parser.add_argument("--part", choices=PARTS, help="used by the processes that this one starts")
    parser.add_argument("--folder", type=Path, help="used by the processes that this one starts")
    arguments = parser.parse_args()
    if arguments.part:
        measure(arguments.part, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as root:
        simulate(Path(root), arguments.rows, arguments.features)
        print(f"{arguments.rows:,} images, {CLASSES} classes, activations of {arguments.features} features")
        print(f"{'':34}{'CPU s':>8}{'peak MB':>10}{'own MB':>10}{'mapped MB':>12}")
        for part in PARTS:
            command = [sys.executable, "-m", "benchmarks.large_sets", "--part", part, "--folder", root]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            memory = f"{found['peak_mb']:10.0f}{found['own_mb']:10.0f}{found['mapped_mb']:12.0f}"
            print(f"{part:34}{found['cpu_s']:8.1f}{memory}", flush=True)
        compare_reading(Path(root) / "reading", arguments.photos, arguments.photos_from)


def simulate(root: Path, rows: int, features: int) -> None:
    """Write the manifest, the index and the activations of images that are not there."""
    names = [f"n{label:08d}/n{label:08d}_{i:07d}.JPEG" for i, label in enumerate(np.arange(rows) % CLASSES)]
    places = sorted((f"{i // IN_SHARD:05d}.tar/{name}" for i, name in enumerate(names)), key=str.encode)

    def samples() -> Iterator[Sample]:
        for i, path in enumerate(places):
            file_digest, digest = (hashlib.sha256(f"{kind}{i}".encode()).hexdigest() for kind in ("file", "pixels"))
            split = "valid" if i % 26 == 0 else "train"
            yield Sample(path, path.split("/")[1], split, digest, file_digest, digest, 500, 375)

    write_manifest(root, samples(), [f"n{label:08d}" for label in range(CLASSES)], root=None)
    save_index(root, (Member(path, 512, 110_000, path.split("/")[1]) for path in places), group=None)
    for shard in {path.partition("/")[0] for path in places}:
        (root / shard).touch()
    header = {
        "targets": {"dtype": "I64", "shape": [rows], "data_offsets": [0, 8 * rows]},
        "activations": {
            "dtype": "F32",
            "shape": [1, rows, features],
            "data_offsets": [8 * rows, 8 * rows + 4 * rows * features],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (root / "activations-train.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 8 * rows + 4 * rows * features)


def measure(part: str, folder: Path) -> None:
    """Do a part in this process, and print what it took beside what was there before."""
    began = time.process_time()
    held = PARTS[part](folder)
    rows = dict(row.split(":") for row in Path("/proc/self/status").read_text().splitlines())
    own, mapped = (int(rows[name].split()[0]) / 2**10 for name in ("RssAnon", "RssFile"))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"cpu_s": time.process_time() - began, "peak_mb": peak_mb, "own_mb": own, "mapped_mb": mapped}))
    del held


def import_all(_: Path) -> None:
    """Import what training does."""
    import pipeline.learning.image_learners  # noqa: F401


def read(folder: Path) -> Manifest:
    """Read the manifest."""
    import_all(folder)
    return read_manifest(folder)


def open_training(folder: Path) -> object:
    """Open the images of train, and go through an epoch's order as training draws it."""
    from pipeline.data.images import _Keys, open_images_of
    from pipeline.data.normalisation import Normalisation
    from pipeline.model.batches import even_batches
    from pipeline.seeds import permutation

    import_all(folder)
    manifest = read_manifest(folder)
    plain = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = open_images_of(manifest, manifest.of("train"), FRAMING, normalisation=plain, workers=0)
    order = even_batches(permutation(images.num_samples, 0, "order"), BATCH_SIZE)
    assert sum(map(len, _Keys(order, 0))) == images.num_samples
    return images


def look_up(folder: Path) -> None:
    """Look up images in the index, in random order."""
    samples = read_manifest(folder).samples
    for row in random.Random(0).sample(range(len(samples)), LOOK_UPS):
        path = samples[row].path
        find_member(f"{folder}/{path}", f"{folder}/{path.partition('/')[0]}")


def draw_activations(folder: Path) -> object:
    """Read activations, and draw batches of them in random order."""
    import torch

    from pipeline.learning.sources import ViewBatches
    from pipeline.model.tensors import read_tensors

    import_all(folder)
    stored = read_tensors(folder / "activations-train.safetensors")
    source = ViewBatches(stored["activations"], stored["targets"])
    order = torch.randint(0, source.num_samples, (DRAWN, BATCH_SIZE)).tolist()
    assert sum(len(targets) for _, targets in source.batches(order, draw=0)) == DRAWN * BATCH_SIZE
    return source


PARTS: dict[str, Callable[[Path], object]] = {
    "imports alone": import_all,
    "manifest": read,
    "manifest, and an epoch's order": open_training,
    f"manifest, and {LOOK_UPS} look-ups": look_up,
    "activations": draw_activations,
}


def compare_reading(folder: Path, count: int, photos: Path | None) -> None:
    """Read photos in a random order, from files and from shards in turns."""
    files = make_photos(folder / "photos", count, photos)
    with closing(Register()) as found:
        found.add_found(Folder(folder / "photos").find())
        ShardWriter(folder / "photos", folder / "shards", 256 * 10**6, None, Bar()).write(found)
    index = (folder / "shards" / "index.tsv").read_text().splitlines()[1:]
    members = [folder / "shards" / line.partition("\t")[0] for line in index]
    random.Random(0).shuffle(files)
    random.Random(0).shuffle(members)
    for what, read_one in (("bytes", _read_bytes), ("decoded to 224", _decode)):
        times: dict[str, list[tuple[float, float]]] = {"files": [], "shards": []}
        for _ in range(ROUNDS):
            for name, paths in (("files", files), ("shards", members)):
                wall, cpu = time.perf_counter(), time.process_time()
                for path in paths:
                    read_one(path)
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        shown = ", ".join(f"{name} {1e6 * min(c for _, c in t) / len(files):.0f}" for name, t in times.items())
        ratios = [min(t[k] for t in times["shards"]) / min(t[k] for t in times["files"]) for k in (0, 1)]
        print(f"{len(files)} photos, {what}: CPU us each: {shown}; shards over files: wall {ratios[0]:.3f}, CPU "
              f"{ratios[1]:.3f}")  # fmt: skip


def make_photos(folder: Path, count: int, photos: Path | None) -> list[Path]:
    """Write photos into class folders; returns them."""
    given: Sequence[Path] = sorted(photos.rglob("*.jpg")) if photos else []
    generator = np.random.default_rng(0)
    for i in range(count):
        file = folder / f"class {i % 10}" / f"{i:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        if given:
            shutil.copyfile(given[i % len(given)], file)
        else:
            coarse = Image.fromarray(generator.integers(0, 256, (94, 125, 3), np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=90)
    return sorted(chain.from_iterable(p.glob("*.jpg") for p in folder.iterdir()))


def _read_bytes(path: Path) -> None:
    with open_image_file(path) as file:
        file.read()


def _decode(path: Path) -> None:
    decode_framed(path, FRAMING)


if __name__ == "__main__":
    main()
