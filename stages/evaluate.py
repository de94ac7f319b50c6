"""Stage `evaluate`: the measures of one model on validation and test, from its stored logits."""

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import write_json
from stages.data.dataset import Prepared
from stages.evaluation import predictions
from stages.evaluation.summary import summarize
from stages.models import params


def main() -> None:
    name, _ = params.read_for_model(__doc__)
    prepared = Prepared.open(paths.PREPARED)
    val, test = (predictions.of_split(name, prepared, split) for split in ("val", "test"))
    metrics = summarize(val, test, prepared.superclass_of_class)
    for split in ("val", "test"):
        top1, low, high, top5 = (metrics[split][key] for key in ("top1", "top1_low", "top1_high", "top5"))
        print(f"{name}: {split} top-1 {top1:.2%} ({low:.2%} to {high:.2%}), top-5 {top5:.2%}")
    write_json(paths.METRICS / f"{name}.json", metrics)


if __name__ == "__main__":
    with one_line_errors("evaluate"):
        main()
