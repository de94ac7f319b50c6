from pathlib import Path

import pytest

from stages.tracking.lineage import dvc_tags, git_tags

from .conftest import git

IGNORED = ("params.yaml", "dvc.lock", "reports")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("params.yaml", "code.py"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_tree_is_named_by_its_commit(repository: Path) -> None:
    tags = git_tags(repository, IGNORED)
    assert len(tags["git_commit"]) == 40
    assert tags["git_dirty"] == "false"


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", "reports/comparison.md", "notes.txt"])
def test_what_is_recorded_elsewhere_does_not_make_it_dirty(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("2")
    assert git_tags(repository, IGNORED)["git_dirty"] == "false"


@pytest.mark.parametrize("name", ["code.py", "new.py", "folder/with space.py"])
def test_changed_or_new_code_makes_it_dirty(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("2")
    assert git_tags(repository, IGNORED)["git_dirty"] == "true"


def test_without_git_there_are_no_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_tags(tmp_path) == {}
    monkeypatch.setenv("PATH", "")
    assert git_tags(tmp_path) == {}


def test_dvc_says_which_stage_and_experiment_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@vit_scratch")
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert dvc_tags() == {"dvc_stage": "train@vit_scratch"}
    monkeypatch.setenv("DVC_EXP_NAME", "widths-1")
    assert dvc_tags() == {"dvc_stage": "train@vit_scratch", "dvc_experiment": "widths-1"}
