"""A Hydra plugin that checks the overrides of `dvc exp run -S key=value`.

There DVC composes the settings, and Hydra's own error does not suggest the nearest key. DVC loads the plugins in this
folder before it composes, so this is the earliest point at which the project sees the command line. Nothing is changed
here: a mistyped key raises SettingsError before anything is written.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from pipeline.harness.compose import check_overrides

_FLAGS = ("-S", "--set-param")


class CheckOverrides(SearchPathPlugin):
    """Refuses an unknown key in `dvc exp run -S` and suggests the nearest one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        del search_path
        if sys.argv[1:2] in (["exp"], ["experiments"]):
            check_overrides(list(typed_overrides(sys.argv)))


def typed_overrides(argv: Sequence[str]) -> Iterator[str]:
    """Yield the overrides that follow `-S` or `--set-param` in a command line."""
    for flag, value in pairwise(argv):
        if flag in _FLAGS:
            yield value
    for word in argv:
        for flag in _FLAGS:
            if word.startswith(f"{flag}="):
                yield word.removeprefix(f"{flag}=")
            elif flag == "-S" and word.startswith("-S") and len(word) > 2 and not word.startswith("-S="):
                yield word.removeprefix("-S")
