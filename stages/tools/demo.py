"""What `make demo` measured, as one file beside its reports: a demo.json that is to be published goes to reports/."""

import argparse
from pathlib import Path

from stages.common import hardware
from stages.common.errors import one_line_errors
from stages.common.files import read_json, write_json
from stages.tracking.lineage import git_tags

MEASURES = ("top1", "top1_low", "top1_high")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.demo", description=__doc__)
    parser.add_argument("reports", type=Path, help="the folder of its reports")
    parser.add_argument("seconds", type=int, help="that it took")
    options = parser.parse_args()
    remedy, git = "run `make demo`", git_tags(ignoring=[Path("reports"), "dvc.lock"])
    comparison = read_json(options.reports / "comparison.json", remedy)
    metrics = {file.stem: read_json(file, remedy) for file in sorted((options.reports / "metrics").glob("*.json"))}
    models = {
        name: {split: {key: own[split][key] for key in MEASURES} for split in ("val", "test")}
        for name, own in metrics.items()
    }
    dataset = {key: comparison["dataset"][key] for key in ("data_sha256", "counts", "split_seed")}
    found = {
        "commit": git.get("git_commit"),
        "uncommitted_changes": git.get("git_dirty") == "true",
        "minutes": round(options.seconds / 60, 1),
        "hardware": hardware.describe(),
        "dataset": dataset,
        "models": models,
        "baselines": comparison["baselines"],
    }
    write_json(options.reports / "demo.json", found)


if __name__ == "__main__":
    with one_line_errors("demo"):
        main()
