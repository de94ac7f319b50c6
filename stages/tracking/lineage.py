"""Where a run comes from, as tags: commit, DVC stage and experiment."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stages.common import paths

GIT_TIMEOUT = 10.0  # seconds
# Changes to these are no change of the code: parameters are recorded beside it, the rest is made by the pipeline.
RECORDED_ELSEWHERE = (paths.PARAMS, "dvc.lock", paths.REPORTS)


def git_tags(folder: Path = Path(), ignoring: Sequence[str | Path] = ()) -> dict[str, str]:
    """`git_commit` and `git_dirty` (true | false) of the working tree at `folder`; empty without git or a repository.

    ignoring: paths whose changes do not count, because something else records them: parameters, a pipeline's outputs.
    A Python file that git does not know does count: it may have been imported.
    """
    excluded = [f":(exclude){Path(path).as_posix()}" for path in ignoring]
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=all", "--", "."]
    try:
        done = subprocess.run([*command, *excluded], capture_output=True, text=True, timeout=GIT_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    commit = re.search(r"^# branch\.oid (\w+)$", done.stdout, re.MULTILINE)
    if commit is None:
        return {}
    is_dirty = re.search(r'^([12u] .*|\? .*\.py"?)$', done.stdout, re.MULTILINE)
    # The second is where MLflow's own pages look for the commit.
    return {
        "git_commit": commit[1],
        "mlflow.source.git.commit": commit[1],
        "git_dirty": "true" if is_dirty else "false",
    }


def dvc_tags() -> dict[str, str]:
    """`dvc_stage` and `dvc_experiment`, as far as DVC runs this process."""
    names = {"dvc_stage": "DVC_STAGE", "dvc_experiment": "DVC_EXP_NAME"}
    return {tag: os.environ[variable] for tag, variable in names.items() if os.environ.get(variable)}
