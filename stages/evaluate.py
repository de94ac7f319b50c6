"""Stage `evaluate`: the measures of one model on validation and test, from its stored logits."""

import argparse

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import write_json
from stages.data.dataset import Prepared
from stages.evaluation import predictions
from stages.evaluation.summary import summarize
from stages.models import params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    params.read().model(name)
    prepared = Prepared.open(paths.PREPARED)
    val, test = (predictions.of_split(name, prepared, split) for split in ("val", "test"))
    metrics = summarize(val, test, prepared.superclass_of_class)
    for split in ("val", "test"):
        found = metrics[split]
        print(
            f"{name}: {split} top-1 {found['top1']:.2%} ({found['top1_low']:.2%} to {found['top1_high']:.2%}), "
            f"top-5 {found['top5']:.2%}"
        )
    write_json(paths.METRICS / f"{name}.json", metrics)


if __name__ == "__main__":
    with one_line_errors("evaluate"):
        main()
