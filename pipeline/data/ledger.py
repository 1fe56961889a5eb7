"""The ledger: a line for every file that was found, and when there is too much wrong to go on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.facts import Facts
from pipeline.settings import Data, SettingsError

VERDICTS = ("accepted", "converted", "flagged", "rejected", "ignored")
_LISTED = 10


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What became of a file."""

    path: str
    verdict: str
    """`accepted`; `converted` (how); `flagged`: used, but doubtful (why); `rejected`: not used (why); `ignored`: never
    meant to be an image of the set, as hidden files and what systems leave behind."""
    reason: str


def judge(path: str, facts: Facts) -> LedgerLine:
    """The line of a file that was looked at: the gravest verdict, with all that is to be said."""
    if facts.problem:
        return LedgerLine(path, "rejected", facts.problem)
    verdict = "flagged" if facts.flags else "converted" if facts.conversions else "accepted"
    return LedgerLine(path, verdict, "; ".join([*facts.flags, *facts.conversions]))


def check_rejected(rejected: Sequence[LedgerLine], data: Data, *, looked_at: int) -> None:
    """Raise SettingsError, with the first files and the ways to go on, where more was rejected than `data` allows."""
    if not rejected or (data.on_reject == "skip" and len(rejected) <= data.max_rejected * looked_at):
        return
    shown = "".join(f"\n    {line.path!r}: {line.reason}" for line in rejected[:_LISTED])
    more = f"\n    and {len(rejected) - _LISTED} more" if len(rejected) > _LISTED else ""
    kinds = Counter(line.reason.partition(":")[0] for line in rejected).most_common(3)
    why = ", ".join(f"{count} {reason}" for reason, count in kinds)
    rule = (
        "data.on_reject=fail allows none"
        if data.on_reject == "fail"
        else f"data.max_rejected={data.max_rejected:g} allows {int(data.max_rejected * looked_at)}"
    )
    raise SettingsError(
        f"{len(rejected)} of {looked_at} files were rejected ({why}), and {rule}:{shown}{more}\n"
        f"  mend or remove them{_way_on(len(rejected) / looked_at, data)}"
    )


def _way_on(share: float, data: Data) -> str:
    """How to do without the rejected, if anything is left then."""
    if share == 1:
        return ""
    way = f"data.max_rejected={min(1.0, -(-share * 100 // 1) / 100):g}"
    return ", or go on without them: " + (f"data.on_reject=skip and {way}" if data.on_reject == "fail" else way)
