"""The plugin that looks at `dvc exp run -S`."""

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

from hydra_plugins.check_overrides import CheckOverrides, typed_overrides
from pipeline.settings import SettingsError


def test_every_spelling_of_the_flag_is_read() -> None:
    argv = ["dvc", "exp", "run", "-S", "a=1", "-Sb=2", "--set-param", "c=3", "--set-param=d=4", "-n", "x"]
    assert sorted(typed_overrides(argv)) == ["a=1", "b=2", "c=3", "d=4"]


def test_a_typo_is_refused_with_the_nearest_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dvc", "exp", "run", "-S", "full_train.cycle_mlt=2"])
    with pytest.raises(SettingsError, match=r"nearest: full_train\.cycle_mult"):
        CheckOverrides().manipulate_search_path(ConfigSearchPathImpl())
    monkeypatch.setattr("sys.argv", ["python", "-S", "full_train.cycle_mlt=2"])
    CheckOverrides().manipulate_search_path(ConfigSearchPathImpl())
