"""Where figures come from: what stands beside everything that a tool leaves."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from stages.common import hardware
from stages.common.files import json_sha256
from stages.tracking.lineage import RECORDED_ELSEWHERE, git_tags

LIBRARIES = ("torch", "torchvision", "timm", "lightning", "keras", "tensorflow", "openvino", "mlflow", "numpy")


def here(params_sha256: str, data_sha256: str) -> dict[str, Any]:
    """Of what is measured now, with the code in this folder."""
    git = git_tags(ignoring=RECORDED_ELSEWHERE)
    return {
        "commit": git.get("git_commit"),
        "uncommitted_changes": git.get("git_dirty") == "true",
        "params_sha256": params_sha256,
        "data_sha256": data_sha256,
        "hardware": hardware.describe(),
        "versions": {library: version(library) for library in LIBRARIES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def of_runs(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The same of trainings, by their run.json; where they differ, a list of what there is."""
    records = [
        {
            "commit": run["tags"].get("git_commit"),
            "uncommitted_changes": run["tags"].get("git_dirty") == "true",
            "params_sha256": run["tags"]["params_sha256"],
            "data_sha256": run["data_sha256"],
            "hardware": run["hardware"],
            "versions": run["versions"],
            "date": run["started"],
        }
        for run in runs
    ]
    found = {key: list({json_sha256(record[key]): record[key] for record in records}.values()) for key in records[0]}
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}
