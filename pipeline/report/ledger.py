"""The lines of `ingest`'s ledger that are worth showing."""

from pathlib import Path
from typing import Any

from pipeline.files import read_json, read_jsonl

TROUBLES = ("rejected", "flagged")


def first_lines(ingest: Path, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Return the first `limit` lines of rejected and of flagged files; reads no further than needed."""
    metrics = read_json(ingest / "metrics.json")
    wanted = {verdict: min(limit, metrics[verdict]) for verdict in TROUBLES}
    found: dict[str, list[dict[str, Any]]] = {verdict: [] for verdict in TROUBLES}
    missing = sum(wanted.values())
    for line in read_jsonl(ingest / "ledger.jsonl") if missing else ():
        verdict = line["verdict"]
        if len(found.get(verdict, ())) < wanted.get(verdict, 0):
            found[verdict].append(line)
            missing -= 1
            if not missing:
                break
    return found
