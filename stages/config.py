"""The first stage: settle the settings, so that what DVC hashes is what the stages read.

Reads `conf/`. Writes `params.yaml` (the resolved settings), `overrides.json` (what an experiment changed against
`conf/`) and `artifacts/config/`: fingerprints of the images, of the weights, of what precomputed views depend on, and
of each stage's code with all that it imports, so that whatever changes reruns what depends on it. In an experiment it
also mends `dvc.lock`. Runs at every `dvc repro`, in a fraction of a second.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.console import complain, say
from pipeline.data.archive import is_archive
from pipeline.data.folder import find_in_folder
from pipeline.data.table import SUFFIXES, read_table
from pipeline.files import write_json, write_text
from pipeline.harness.fingerprints import code_fingerprint
from pipeline.model.weights_file import find_weights_file
from pipeline.params import flatten, load_params, to_yaml
from pipeline.paths import from_checkout
from pipeline.settings import Data, Settings, SettingsError, read_settings
from stages import STAGES

CONF = Path("conf")
PARAMS = Path("params.yaml")
HELD = Path("overrides.json")
ARTIFACT = Path("artifacts/config")
PROJECT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Settle, fingerprint, and say what changed."""
    is_experiment = "DVC_EXP_NAME" in os.environ
    try:
        values = settle(is_experiment=is_experiment)
        write_fingerprints(read_settings(values, source=str(PARAMS)), ARTIFACT)
        if is_experiment:
            from pipeline.harness.dvc_lock import repair_lock  # DVC takes half a second

            repair_lock(Path())
    except (ValueError, OSError) as error:
        complain("config", str(error))
        return 1
    return 0


def write_fingerprints(settings: Settings, folder: Path) -> None:
    """Write what tells that images, weights or code changed. Raises SettingsError, FileNotFoundError."""
    data = fingerprint_data(settings.data)
    weights = fingerprint_weights(settings.model.arch, settings.model.weights)
    (folder / "code").mkdir(parents=True, exist_ok=True)
    write_json(folder / "data.json", data)
    write_json(folder / "weights.json", weights)
    write_json(folder / "views.json", settings_of_views(settings))
    for name in STAGES:
        write_json(folder / "code" / f"{name}.json", code_fingerprint(f"stages.{name}", PROJECT))


def settle(*, is_experiment: bool) -> dict[str, Any]:
    """Decide what `params.yaml` holds, write it, and return it.

    In an experiment DVC has just composed it with `-S`: that is kept, and what differs from `conf/` is recorded.
    Otherwise it is composed from `conf/`, unless an applied experiment's changes are held. Nothing that a person typed
    is dropped in silence: raises SettingsError, with both ways out, where that would happen.
    """
    before = load_params(PARAMS) if PARAMS.exists() else {}
    held = json.loads(HELD.read_text(encoding="utf-8")) if HELD.exists() else {}
    if before and not is_experiment and held.get("conf") == conf_digest() and held.get("params") == _digest(PARAMS):
        if held["overrides"]:
            say("config", f"holding the experiment's settings: {_listed(held['overrides'])}")
        return before
    from pipeline.harness.compose import compose  # Hydra takes a third of a second, and mostly nothing has changed

    composed = compose()
    if is_experiment:
        read_settings(before, source="dvc exp run")
        values = _in_order(before, like=composed)
        for key in sorted(set(held.get("overrides", {})) - set(differences(values, composed))):
            say(
                "config",
                f"{key} is back to {flatten(composed)[key]!r}: an experiment starts from conf/, not from the last one",
            )
    elif held.get("overrides") and before:
        values = _keep_held(before, held)
    else:
        _refuse_hand_edits(before, composed, held)
        values = composed
    _report(before, values)
    write_text(PARAMS, to_yaml(values))
    overrides = differences(values, composed)
    if is_experiment and overrides:
        say("config", f"experiment: {_listed(overrides)}")
    record = {"overrides": overrides, "conf": conf_digest(), "params": _digest(PARAMS)}
    write_text(HELD, json.dumps(record, indent=1) + "\n")
    return values


def differences(values: dict[str, Any], composed: dict[str, Any]) -> dict[str, Any]:
    """The settings, flat, in which `values` differs from `composed`."""
    flat = flatten(composed)
    return {k: v for k, v in flatten(values).items() if k not in flat or flat[k] != v}


def fingerprint_data(data: Data) -> dict[str, Any]:
    """What tells that the images changed: names, sizes and times of all files that they come from."""
    record = {"name": data.name, "root": data.root, "dataset": data.dataset}
    if data.root is None:
        return record
    root = from_checkout(data.root)
    if data.name == "folder" and not (root.is_dir() or (root.is_file() and is_archive(root))):
        table = "; a table of images is read with data=csv" if root.suffix.lower() in SUFFIXES else ""
        raise SettingsError(
            f"data.root={data.root} is not a folder ({root.resolve()}), nor an archive of one; give the folder whose "
            f"sub-folders are the classes{table}"
        )
    files, count = hashlib.sha256(), 0
    for name, path in _source_files(data, root):
        files.update(f"{name}\0{_state(path)}\0".encode(errors="surrogateescape"))
        count += 1
    return record | {"files": count, "fingerprint": files.hexdigest()}


def _source_files(data: Data, root: Path) -> Iterator[tuple[str, str]]:
    """Every file that the images come from, by its name in `root` and its path, in a fixed order."""
    # Strings, for there may be a million: pathlib takes ten times as long.
    match data.name:
        case "folder" if root.is_dir():
            found = find_in_folder(root, relative_to=root)
            yield from ((f.path, os.path.join(root, f.path)) for f in found)  # noqa: PTH118
        case "torchvision":
            for here, folders, names in os.walk(root):
                folders.sort()
                paths = (str(Path(here) / name) for name in sorted(names))
                yield from ((os.path.relpath(path, root), path) for path in paths)
        case "csv":
            yield ".", str(root)
            rows = read_table(root, group=data.group)
            yield from ((f"../{row.path}", os.path.join(root.parent, row.path)) for row in rows)  # noqa: PTH118
        case _:
            yield ".", str(root)


def _state(path: str) -> str:
    """What changes when a file does, or when a link or what it leads to does."""
    try:
        link = file = os.lstat(path)
        if stat.S_ISLNK(link.st_mode):
            file = os.stat(path)  # noqa: PTH116
    except OSError:
        return "gone"
    return f"{link.st_mtime_ns} {file.st_size} {file.st_mtime_ns}"


def fingerprint_weights(arch: str, weights: str) -> dict[str, Any]:
    """What tells that the weights changed: for a file, its content."""
    if weights in ("none", "imagenet"):
        return {"arch": arch, "weights": weights}
    return {"arch": arch, "weights": weights, "sha256": _digest(find_weights_file(arch, weights))}


def settings_of_views(settings: Settings) -> dict[str, Any]:
    """The settings that precomputed views depend on; none without views, so that augmentation then changes nothing."""
    return flatten({"augment": asdict(settings.augment)}) if settings.precompute.views else {}


def _keep_held(before: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    changed = _listed(held["overrides"])
    if held["params"] != _digest(PARAMS):
        raise SettingsError(
            f"{PARAMS} was changed by hand while it holds an experiment ({changed}): undo it with `git checkout "
            f"{PARAMS}` or `dvc exp apply`, and set values in conf/ or with `dvc exp run -S key=value`"
        )
    if held["conf"] != conf_digest():
        raise SettingsError(
            f"conf/ was changed while an experiment's settings are held ({changed}). To keep both: `dvc exp run "
            f"{_flags(held['overrides'])}`. To drop the experiment's: `rm {HELD} {PARAMS}`, then `dvc repro`"
        )
    return before


def _refuse_hand_edits(before: dict[str, Any], composed: dict[str, Any], held: dict[str, Any]) -> None:
    if not before or held.get("params") == _digest(PARAMS) or not (mine := differences(before, composed)):
        return
    known = {k: v for k, v in mine.items() if k in flatten(composed)}
    keep = f"To keep it: edit conf/, or `dvc exp run {_flags(known)}`. " if known else ""
    raise SettingsError(
        f"{PARAMS} holds what conf/ does not say ({_listed(mine)}). {keep}To drop it: `rm {PARAMS}`, then `dvc repro`"
    )


def _report(before: dict[str, Any], values: dict[str, Any]) -> None:
    old = flatten(before)
    for key, value in (flatten(values) if before else {}).items():
        if key not in old or old[key] != value:
            say("config", f"{key}: {old.get(key, '(new)')} -> {value}")


def _in_order(values: dict[str, Any], *, like: dict[str, Any]) -> dict[str, Any]:
    """`values` with its keys in the order of `like`, so that equal settings are equal bytes."""
    keys = [*(k for k in like if k in values), *(k for k in values if k not in like)]
    nested = {k for k in keys if isinstance(values[k], dict) and isinstance(like.get(k), dict)}
    return {k: _in_order(values[k], like=like[k]) if k in nested else values[k] for k in keys}


def _listed(overrides: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in overrides.items())


def _flags(overrides: dict[str, Any]) -> str:
    return " ".join(f"-S '{k}={'null' if v is None else v}'" for k, v in overrides.items())


def conf_digest(conf: Path = CONF) -> str:
    """Digest of all files in `conf/`."""
    files = sorted(p for p in conf.rglob("*.yaml"))
    content = {p.relative_to(conf).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    assert CONF.is_dir(), "run from the project's root"
    sys.exit(main())
