"""The last sections of a report: what took how long, the settings, and what to type."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.report.facts import Before, Facts, duration
from pipeline.report.first_screen import settings_of
from pipeline.report.html import Section, Table


def closing_sections(folders: Mapping[str, Path], facts: Facts) -> Iterator[Section]:
    """Yield the sections that are not about images; those that nothing is known of are left out."""
    if facts.before is not None and facts.before.changed:
        yield _changes_section(facts.before)
    if facts.predict:
        yield Section("Use the model", commands=["\n".join(facts.predict)])
    if facts.reproduce:
        yield Section("Make this run again", commands=["\n".join(facts.reproduce)])
    if facts.seconds:
        yield _times_section(facts.seconds)
    if settings := settings_of(folders):
        yield _settings_section(settings, facts)


def _changes_section(before: Before) -> Section:
    what = f"The run before is that of {before.date}. These settings have changed since:"
    return Section("What changed since the run before", paragraphs=[what], commands=["\n".join(before.changed)])


def _times_section(seconds: Mapping[str, float]) -> Section:
    rows: list[list[Any]] = [[stage, f"{taken:.1f} s"] for stage, taken in seconds.items()]
    rows.append(["all stages", duration(sum(seconds.values()))])
    note = "The time of work, also where a result came from an earlier run."
    return Section("Times", paragraphs=[note], table=Table(["stage", "took"], rows))


def _settings_section(settings: Mapping[str, Any], facts: Facts) -> Section:
    changed = {pair.partition("=")[0] for pair in facts.changed}
    rows: list[list[Any]] = [
        [key, _text(value), "changed" if key in changed else ""] for key, value in settings.items()
    ]
    rows.sort(key=lambda row: not row[2])
    note = "Those that differ from conf/ come first." if changed else "All are as conf/ has them."
    return Section("Settings", paragraphs=[note] if facts.date else [], table=Table(["setting", "value", ""], rows))


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
