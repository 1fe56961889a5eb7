"""`unfreeze shards`: write images into shards, or the index of shards that others wrote, for `data=shards`."""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pipeline.console import complain, progress_bar, say
from pipeline.data import table
from pipeline.data.register import Register
from pipeline.data.shard_index import find_shards, write_index
from pipeline.data.shard_writer import ShardWriter, left_out
from pipeline.data.shards import INDEX
from pipeline.data.sources import Folder, Source, Table
from pipeline.report.text import counted
from pipeline.settings import SettingsError

NAME = "shards"
SHARD_MB = 256


def main(argv: Sequence[str], *, prog: str) -> int:
    """Write shards or an index; returns 1 if it fails."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").partition("`: ")[2])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the images of a folder or a table into shards")
    write.add_argument("images", type=Path, metavar="IMAGES", help="as data.root for data=folder or data=csv")
    write.add_argument("shards", type=Path, metavar="SHARDS", help="a new folder")
    write.add_argument("--shard-mb", type=float, default=SHARD_MB, help="MB (10^6 bytes) in a shard (default: 256)")
    write.add_argument("--group", help="the table's column of groups, for data.group")
    index = commands.add_parser("index", help=f"write {INDEX} beside tar files of <class>/* or <split>/<class>/*")
    index.add_argument("shards", type=Path, metavar="SHARDS", help="the folder of the tar files")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "index":
            _index(arguments.shards)
        else:
            _write(arguments.images, arguments.shards, arguments.shard_mb, arguments.group)
    except (ValueError, OSError) as error:
        complain(NAME, str(error))
        return 1
    return 0


def _index(shards: Path) -> None:
    if (shards / INDEX).exists():
        raise SettingsError(f"{shards / INDEX} is there already: remove it if the shards have changed")
    with progress_bar(NAME, 2 * len(find_shards(shards))) as bar:
        count = write_index(shards, bar)
    say(NAME, f"{count} files in {counted(len(find_shards(shards)), 'shard')}: data=shards data.root={shards}")


def _write(images: Path, shards: Path, shard_mb: float, group: str | None) -> None:
    source = _source(images, group)
    if shards.resolve().is_relative_to(source.root.resolve()):
        raise SettingsError(f"{shards} is inside {source.root}, whose images would include it: name another folder")
    if not shard_mb > 0:
        raise SettingsError(f"--shard-mb={shard_mb:g} must be above 0")
    with closing(Register()) as found:
        found.add_found(source.find())
        with progress_bar(NAME, found.count_to_read()) as bar:
            writer = ShardWriter(source.root, shards, int(shard_mb * 1e6), group, bar)
            writer.write(found)
        for note in source.notes:
            say(NAME, note)
        for problem, count in left_out(found).most_common():
            say(NAME, f"left out: {count} ({problem})")
    say(NAME, f"{writer.num_images} images in {counted(writer.num_shards, 'shard')}: data=shards data.root={shards}")


def _source(images: Path, group: str | None) -> Source:
    if images.suffix.lower() in table.SUFFIXES:
        return Table(images.parent, images, group)
    if group is not None:
        raise SettingsError(f"--group={group} names a column, and {images} is not a table")
    return Folder(images)
