"""Names of classes that are the same to a person and different to a computer."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


def find_near_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in case, in blanks, or in how their letters are encoded; sorted."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[_fold(name)].append(name)
    return [(first, other) for first, *others in alike.values() for other in others]


def describe_near(first: str, second: str) -> str:
    """Both names, so that the difference can be seen, and what it is."""
    if unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second):
        return f"{first!a} and {second!a} differ only in how their letters are encoded"
    if "".join(first.split()) == "".join(second.split()):
        return f"{first!r} and {second!r} differ only in blanks"
    if first.casefold() == second.casefold():
        return f"{first!r} and {second!r} differ only in upper and lower case"
    return f"{first!a} and {second!a} look nearly the same"


def _fold(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
