"""Where a run comes from, as tags: commit, DVC stage and experiment."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

GIT_TIMEOUT = 10.0  # seconds


def git_tags(folder: Path = Path(), ignoring: Sequence[str | Path] = ()) -> dict[str, str]:
    """`git_commit` and `git_dirty` (true | false) of the working tree at `folder`; empty without git or a repository.

    ignoring: paths whose changes do not count, because something else records them: parameters, a pipeline's outputs.
    A Python file that git does not know does count: it may have been imported.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    excluded = [f":(exclude){Path(path).as_posix()}" for path in ignoring]
    status = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".", *excluded)
    if commit is None or status is None:
        return {}
    changes = [line for line in status.splitlines() if not line.startswith("??") or line.rstrip('"').endswith(".py")]
    # The second is where MLflow's own pages look for the commit.
    return {
        "git_commit": commit.strip(),
        "mlflow.source.git.commit": commit.strip(),
        "git_dirty": "true" if changes else "false",
    }


def dvc_tags() -> dict[str, str]:
    """`dvc_stage` and `dvc_experiment`, as far as DVC runs this process."""
    names = {"dvc_stage": "DVC_STAGE", "dvc_experiment": "DVC_EXP_NAME"}
    return {tag: os.environ[variable] for tag, variable in names.items() if os.environ.get(variable)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_TIMEOUT).stdout
    except (OSError, subprocess.SubprocessError):
        return None
