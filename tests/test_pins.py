"""What is pinned: the lock holds a digest of every pin, and the audit hides nothing."""

from tests.audit import summarise
from tests.lock import LOCK, read_pins


def test_the_lock_has_digests_of_every_pin() -> None:
    entries = [e for e in LOCK.read_text(encoding="utf-8").replace("\\\n", " ").splitlines() if not e.startswith("#")]
    locked = {entry.split()[0]: entry.count("--hash=sha256:") for entry in entries}
    assert locked.keys() == {str(pin) for pin in read_pins().values()}, "type `python -m tests.lock`"
    assert all(locked.values())


def test_the_audit_names_what_is_known_and_says_of_how_many_it_knows() -> None:
    good: dict[str, object] = {"name": "a", "version": "1.0", "vulns": []}
    unknown: dict[str, object] = {"name": "b", "version": "1.0", "skip_reason": "not found"}
    bad = {"name": "c", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
    assert summarise([good, unknown]) == (
        "audit: 1 of 2 pinned packages are known to PyPI's database of vulnerabilities",
        0,
    )
    text, count = summarise([good, bad])
    assert count == 1
    assert "c==2.0: CVE-1; fixed in: 2.1" in text
    assert "nothing is known" in summarise([unknown])[0]
