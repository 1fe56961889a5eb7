"""The same answers everywhere, and how fast a server gives them.

`python -m benchmarks.serving [ARTIFACTS] [--images 200] [--requests 400]` takes the model of a finished run. It prints
the largest difference of a probability between `tta_evaluate` and `unfreeze predict`, `mlflow models serve`, ONNX and
torch.export on the same images, and the times of requests with one image at 1 and 16 clients.
"""

import argparse
import base64
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.data.manifest import Manifest, read_manifest
from pipeline.deployment.export import write_exported
from pipeline.deployment.exported import read_exported
from pipeline.evaluation.answers import answer
from pipeline.evaluation.calibration import at_temperature
from pipeline.evaluation.prediction import CPU, Predictor, load_predictor
from pipeline.evaluation.tta import Probs
from pipeline.tracking import RowSpec, publish_row, store_uri

CLIENTS = (1, 16)


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", type=Path, nargs="?", default=Path("artifacts"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--requests", type=int, default=400)
    arguments = parser.parse_args()
    folder = arguments.artifacts / "tta_evaluate" / "model"
    manifest, predictor = read_manifest(arguments.artifacts / "ingest"), load_predictor(folder)
    evaluated = read_evaluated(arguments.artifacts / "tta_evaluate" / "predictions.csv", manifest, arguments.images)
    files = list(evaluated)
    with tempfile.TemporaryDirectory() as scratch, served(arguments.artifacts, Path(scratch)) as address:
        exported = {}
        for suffix in (".onnx", ".pt2"):
            write_exported(folder, predictor, Path(scratch) / f"m{suffix}")
            exported[suffix] = read_exported(Path(scratch) / f"m{suffix}", CPU)
        show_differences(predictor, exported, address, evaluated)
        for clients in CLIENTS:
            times = sorted(measure(address, files, clients=clients, requests=arguments.requests))
            p50, p99 = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
            print(f"{clients:3} clients, {len(times)} requests of one image: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def read_evaluated(file: Path, manifest: Manifest, count: int) -> dict[Path, Probs]:
    """What `tta_evaluate` wrote for the first images: probabilities with TTA, not calibrated, to six digits."""
    with file.open(encoding="utf-8", newline="") as content:
        rows = list(csv.DictReader(content))[:count]
    return {
        manifest.root / row["path"]: np.array([float(row[f"p({name})"]) for name in manifest.classes]) for row in rows
    }


def show_differences(
    predictor: Predictor, exported: dict[str, Predictor], address: str, evaluated: dict[Path, Probs]
) -> None:
    """Print the largest difference of a probability from `tta_evaluate`, and from each other without TTA."""
    files = list(evaluated)
    with_tta = at_temperature(np.stack(list(evaluated.values())), predictor.tta_calibration.temperature)
    plain = predictor.predict(files)
    print(f"largest difference of a probability on {len(files)} images: from tta_evaluate; without TTA from the folder")
    for name, model in {"predict": predictor, **exported}.items():
        found = [np.stack([a.probs for a in answer(model, files, tta=t) if a.probs is not None]) for t in (True, False)]
        show(name, np.abs(found[0] - with_tta).max(), np.abs(found[1] - plain).max())
    found = [ask_all(address, files, predictor.card.classes, tta=tta) for tta in (True, False)]
    show("serve", np.abs(found[0] - with_tta).max(), np.abs(found[1] - plain).max())


def show(name: str, tta: float, plain: float) -> None:
    print(f"  {name:8} {tta:.1e}  {plain:.1e}")


@contextmanager
def served(artifacts: Path, scratch: Path) -> Iterator[str]:
    """Publish the model into a store of its own and serve it; gives the address."""
    spec = RowSpec(
        params={},
        experiment="benchmark",
        tracking_uri=store_uri(scratch, f"sqlite:///{scratch}/mlflow.db"),
        state_dir=scratch / "state",
        root=scratch,
        folders={"tta_evaluate": (artifacts / "tta_evaluate").resolve()},
    )
    run_id = publish_row(spec)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"runs:/{run_id}/model"]
    command += ["--env-manager", "local", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": spec.tracking_uri, "PATH": path}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def request(address: str, files: Sequence[Path], **params: object) -> list[dict[str, object]]:
    """Ask the server about image files."""
    data = [[base64.b64encode(file.read_bytes()).decode()] for file in files]
    content = json.dumps({"dataframe_split": {"columns": ["image"], "data": data}, "params": params}).encode()
    made = urllib.request.Request(address, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(made, timeout=120) as answered:
        predictions: list[dict[str, object]] = json.load(answered)["predictions"]
        return predictions


def ask_all(address: str, files: Sequence[Path], classes: Sequence[str], *, tta: bool) -> Probs:
    """The server's probabilities, [N, num_classes], asked for 16 images at once."""
    rows = []
    for start in range(0, len(files), 16):
        for each in request(address, files[start : start + 16], tta=tta, top_k=len(classes)):
            known = {one["class"]: one["probability"] for one in each["top"]}  # type: ignore[attr-defined]
            rows.append([known[name] for name in classes])
    return np.array(rows)


def measure(address: str, files: Sequence[Path], *, clients: int, requests: int) -> list[float]:
    """Seconds that each request took, by this many clients at the same time."""

    def ask(i: int) -> float:
        began = time.perf_counter()
        request(address, [files[i % len(files)]])
        return time.perf_counter() - began

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(2 * clients)))  # warm
        return list(pool.map(ask, range(requests)))


if __name__ == "__main__":
    main()
