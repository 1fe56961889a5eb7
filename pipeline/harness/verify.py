"""`unfreeze verify`: whether every published folder, and every image, is still what it was when the run was made."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.console import complain, progress_bar, say
from pipeline.data.image_file import digest_image_file, is_image_file
from pipeline.data.manifest import read_manifest
from pipeline.harness.data_fingerprint import CONTENTS, forget_contents
from pipeline.harness.published import check_folder, published_below
from pipeline.paths import ARTIFACTS, state_dir

NAME = "verify"
SHOWN = 20
"""Images that are named."""


def main(argv: Sequence[str], *, prog: str) -> int:
    """Check folders by content; returns 1 if anything has changed."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").partition("`: ")[2])
    parser.add_argument("folders", nargs="*", type=Path, default=[ARTIFACTS], help="default: artifacts")
    parser.add_argument("--no-images", action="store_true", help="do not read the images again")
    arguments = parser.parse_args(argv)
    found = [stage for folder in arguments.folders for stage in published_below(folder)]
    if not found:
        complain(NAME, f"no published folder below {', '.join(map(str, arguments.folders))}: run `dvc repro` first")
        return 1
    wrong = [text for folder in found if (text := _check(folder)) is not None]
    if not arguments.no_images:
        wrong += [text for folder in found if folder.name == "ingest" for text in _check_images(folder)]
    for text in wrong:
        complain(NAME, text)
    if not wrong:
        say(NAME, f"{len(found)} folders are what was published")
    return int(bool(wrong))


def _check(folder: Path) -> str | None:
    """What is wrong with a folder."""
    try:
        check_folder(folder, state=state_dir(), by_content=True)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _check_images(ingest: Path) -> list[str]:
    """What is wrong with the images that a manifest names."""
    try:
        manifest = read_manifest(ingest)
    except (ValueError, OSError, KeyError, TypeError):  # a damaged folder, which was told of
        return []
    changed = []
    with progress_bar(NAME, len(manifest.samples)) as bar:
        for sample in manifest.samples:
            file = manifest.root / sample.path
            if not is_image_file(file) or digest_image_file(file) != sample.file_sha256:
                changed.append(f"{sample.split} image {file}")
            bar.advance()
    if changed:
        forget_contents(state_dir() / CONTENTS)
    else:
        say(NAME, f"{len(manifest.samples)} images are what {ingest} saw")
        return []
    more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return [f"changed since, or gone: {', '.join(changed[:SHOWN])}{more}; `dvc repro` looks at them again"]
