"""The ledger: one line for every file that was found, and the limit on rejected files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.facts import Facts
from pipeline.paths import from_checkout
from pipeline.settings import DataSource, SettingsError

VERDICTS = ("accepted", "converted", "flagged", "rejected", "ignored")
_LISTED = 10


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What became of a file."""

    path: str
    verdict: str
    """`accepted`; `converted`: used after a conversion; `flagged`: used, but doubtful; `rejected`: not used;
    `ignored`: never meant to be a sample, such as hidden files and system files, or listed in `data.drop`."""
    reason: str


def judge(path: str, facts: Facts) -> LedgerLine:
    """The line of a file that was read: its most serious verdict, and every remark about it."""
    if facts.problem:
        return LedgerLine(path, "rejected", facts.problem)
    verdict = "flagged" if facts.flags else "converted" if facts.conversions else "accepted"
    return LedgerLine(path, verdict, "; ".join([*facts.flags, *facts.conversions]))


def check_rejected(rejected: Sequence[LedgerLine], data: DataSource, *, num_files: int) -> None:
    """Raise SettingsError if more of `num_files` files were rejected than `data` allows.

    The message lists the first of them and says how to continue.
    """
    if not rejected or (data.on_reject == "skip" and len(rejected) <= data.max_rejected * num_files):
        return
    shown = "".join(f"\n    {line.path!r}: {line.reason}" for line in rejected[:_LISTED])
    more = f"\n    and {len(rejected) - _LISTED} more" if len(rejected) > _LISTED else ""
    kinds = Counter(line.reason.partition(":")[0] for line in rejected).most_common(3)
    why = ", ".join(f"{count} {reason}" for reason, count in kinds)
    rule = (
        "data.on_reject=fail allows none"
        if data.on_reject == "fail"
        else f"data.max_rejected={data.max_rejected:g} allows {int(data.max_rejected * num_files)}"
    )
    raise SettingsError(
        f"{len(rejected)} of {num_files} files were rejected ({why}), and {rule}:{shown}{more}"
        f"{_folder(rejected, data)}\n  fix or remove them{_way_on(len(rejected) / num_files, data)}"
    )


def _folder(rejected: Sequence[LedgerLine], data: DataSource) -> str:
    """Where the paths of a table lead, if files were missing there."""
    if data.name != "csv" or not any(line.reason.startswith("no such file") for line in rejected):
        return ""
    return f"\n  paths are looked for in the table's folder, {from_checkout(data.root or '').resolve().parent}"


def _way_on(share: float, data: DataSource) -> str:
    """How to continue without the rejected files, if there are others."""
    if share == 1:
        return ""
    way = f"data.max_rejected={min(1.0, -(-share * 100 // 1) / 100):g}"
    return ", or continue without them: " + (f"data.on_reject=skip and {way}" if data.on_reject == "fail" else way)
