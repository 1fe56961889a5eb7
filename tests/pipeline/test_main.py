"""The whole pipeline as one app: what it needs around it."""

from pathlib import Path

import pytest

from pipeline.__main__ import check_git


def test_a_folder_without_git_is_told_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "unzipped").mkdir()
    with pytest.raises(FileNotFoundError, match="git init && git add -A && git commit -m start"):
        check_git(tmp_path / "unzipped")
    (tmp_path / ".git").write_text("gitdir: elsewhere")  # a worktree, or a folder of a larger repository
    check_git(tmp_path / "unzipped")
