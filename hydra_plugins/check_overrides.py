"""A Hydra plugin for `dvc exp run -S key=value`: what is typed lies over what the last experiment holds.

There DVC composes the settings, and Hydra's own errors do not say what to type instead. DVC loads the plugins in this
folder before it composes, so this is the earliest point at which the project sees the command line. A mistyped override
stops the run before anything is written.
"""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from pipeline.console import say
from pipeline.harness.compose import start_from_held
from pipeline.harness.typed import check_quoted
from pipeline.settings import SettingsError

_FLAGS = ("-S", "--set-param")


class CheckOverrides(SearchPathPlugin):
    """Refuses a mistyped override of `dvc exp run -S`, and starts the others from what is held."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not {"exp", "experiments"} & set(sys.argv[1:]):
            return
        conf = _conf(search_path)
        typed = list(typed_overrides(sys.argv))
        try:
            _check_places(sys.argv)
            check_quoted(typed, conf=conf)
            start_from_held(typed, conf=conf, say=_say_once)
        except SettingsError as error:
            from dvc.exceptions import DvcException  # DVC prints these as they are, and others as unexpected

            raise DvcException(str(error)) from None


def typed_overrides(argv: Sequence[str]) -> Iterator[str]:
    """Yield the overrides that follow `-S` or `--set-param` in a command line, without the name of DVC's file."""
    for flag, value in pairwise(argv):
        if flag in _FLAGS:
            yield value.removeprefix("params.yaml:")
    for word in argv:
        for flag in _FLAGS:
            if word.startswith(f"{flag}="):
                yield word.removeprefix(f"{flag}=").removeprefix("params.yaml:")
            elif flag == "-S" and word.startswith("-S") and len(word) > 2 and not word.startswith("-S="):
                yield word.removeprefix("-S").removeprefix("params.yaml:")


def _check_places(argv: Sequence[str]) -> None:
    """Raise SettingsError for an override that stands where DVC expects the name of a stage."""
    for before, word in pairwise(argv):
        if "=" in word and not word.startswith("-") and not before.startswith("-"):
            raise SettingsError(f"{word} is no stage: with `dvc exp run`, each setting needs -S before it: -S {word}")


def _conf(search_path: ConfigSearchPath) -> Path:
    """The folder that DVC composes."""
    (main,) = (path.path for path in search_path.get_path() if path.provider == "main")
    return Path(main.removeprefix("file://"))


@cache
def _say_once(text: str) -> None:
    """Say what a sweep starts from once, not for each of its jobs."""
    say("config", text)
