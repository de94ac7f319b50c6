"""The comparison: a verdict, tables and pictures, method and limits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.report.candidate import Candidate, by_validation, for_each, table
from stages.report.int8 import int8
from stages.report.method import method, setting
from stages.report.verdict import verdict

# What the three notebooks that this project replaces reached on the test pictures of CIFAR-100 after one epoch, as
# they print it: other code, settings and hardware.
NOTEBOOKS = {
    "notebook: ViT from scratch": 0.164,
    "notebook: ViT-Tiny, head only": 0.43,
    "notebook: MobileNetV3-Large, head only": 0.640,
}
DEMO_WARNING = (
    "> **Generated pictures.** These models were trained on procedural drawings, from random initial weights unless "
    "stated otherwise. The numbers show that the pipeline works; they say nothing about photographs."
)


def render(
    candidates: Sequence[Candidate], findings: Mapping[str, Any], dataset: Mapping[str, Any], pictures: Sequence[str]
) -> str:
    """The report in Markdown.

    candidates: any order. findings: of metrics.comparison. dataset: dataset.json. pictures: names of the PNG files in
    plots/ beside the report, without their ending; those that a section knows appear there.
    """
    ranked = by_validation(candidates)
    names = dataset["class_names"]
    precision = for_each(ranked, lambda candidate: candidate.precision)

    def picture(name: str, title: str) -> list[str]:
        return [f"![{title}](plots/{name}.png)"] if name in pictures else []

    parts = [
        f"# Which classifier to ship on {dataset['source']}?",
        *([DEMO_WARNING] if dataset["source"] == "demo" else []),
        verdict(ranked, findings, dataset),
        "## What was compared",
        setting(ranked, dataset),
        "## Accuracy",
        _accuracy(ranked, findings),
        "Ranked by top-1 on validation, which alone chose the best; the test pictures chose nothing. Place: by top-1 "
        "on test; models that cannot be told apart there share one. In brackets the 95 % interval. Top-1 and top-5: "
        "the right class is the first, or among the first five. Superclass: the class named lies in the right one; of "
        "the wrong: the same among wrong answers. Macro F1: mean over the classes.",
        *picture("top1", "Top-1 on test"),
        *picture("learning_curves", "Learning curves"),
        "Learning curves: on validation after each epoch, in the precision of training, and on the batches trained on, "
        f"a running mean of five reports. The tables are in {precision}, as a registered model answers.",
        "### Is it luck?",
        _pairs(findings),
        "## Cost",
        _cost(ranked),
        f"Latency for one picture, throughput in batches of 64, both from raw pixels to logits, in {precision}. Cold "
        "load: a fresh process until its first answer.",
        *picture("pareto", "Accuracy against latency and training time"),
        *int8(findings.get("int8", {}), dataset["counts"]["val"]),
        "## Can its probabilities be believed?",
        _calibration(ranked),
        "On test. NLL: negative log-likelihood, in nats. ECE: expected calibration error, 15 bins of equal mass. "
        "Brier: 0 to 2. Each before and after dividing the logits by the temperature ([Guo et al., 2017]"
        "(https://arxiv.org/abs/1706.04599)); a registered model answers with the calibrated probabilities.",
        *picture("reliability", "Reliability before and after calibration"),
        "### Sets that hold the right class",
        _conformal(ranked),
        "Instead of one class a model can name a set that holds the right one as often as promised: how often it did "
        "on test, and how many classes it took on average. Adaptive prediction sets ([Romano et al., 2020]"
        "(https://arxiv.org/abs/2006.02544)).",
        "## When pictures get worse",
        _robustness(ranked),
        f"Top-1 on {findings['altered_pictures']:,} test pictures under each corruption, mean of three severities. In "
        "the spirit of CIFAR-100-C ([Hendrycks and Dietterich, 2019](https://arxiv.org/abs/1903.12261)), but not its "
        "pictures: figures do not compare with those published for it.",
        *picture("robustness", "Top-1 by corruption and severity"),
        *picture("corruptions", "One picture under each corruption"),
        "### When they show something else",
        _foreign(ranked),
        "Share of pictures whose highest probability ([Hendrycks and Gimpel, 2017](https://arxiv.org/abs/1610.02136)) "
        "lies below the model's threshold, which flags 5 % of validation. "
        "In brackets AUROC: the chance that a test picture scores higher than a foreign one.",
        "## Errors",
        _errors(findings, names),
        *picture("confused_pairs", "Most confused pairs of classes"),
        *picture("class_accuracy", "Top-1 of every class"),
        *(
            line
            for candidate in ranked
            for line in picture(f"superclass_confusion_{candidate.name}", f"Superclasses mixed up by {candidate.name}")
        ),
        *picture("mistakes", "Most confident mistakes"),
        *picture("suspects", "Pictures that all models call by the same other name"),
        "## Method and limits",
        method(ranked, dataset),
        *picture("contact_sheet", "The pictures"),
    ]
    return "\n\n".join(parts) + "\n"


def _columns(ranked: Sequence[Candidate], columns: Mapping[str, Callable[[Candidate], str]]) -> str:
    return table(["model", *columns], [[c.name, *(cell(c) for cell in columns.values())] for c in ranked])


def _accuracy(ranked: Sequence[Candidate], findings: Mapping[str, Any]) -> str:
    places = {row["model"]: row["place"] for row in findings["ranking"]}
    return _columns(
        ranked,
        {
            "val top-1": lambda c: f"{c.val_top1:.2%}",
            "**test top-1**": lambda c: (
                f"**{c.test['top1']:.2%}** ({100 * c.test['top1_low']:.2f} to {100 * c.test['top1_high']:.2f})"
            ),
            "place": lambda c: f"{places[c.name]}",
            "top-5": lambda c: f"{c.test['top5']:.2%}",
            "superclass": lambda c: f"{c.test['superclass_top1']:.2%}",
            "of the wrong": lambda c: f"{c.test['superclass_top1_of_wrong']:.2%}",
            "macro F1": lambda c: f"{c.test['macro_f1']:.3f}",
        },
    )


def _pairs(findings: Mapping[str, Any]) -> str:
    if not findings["pairs"]:
        return "There is only one model."
    header = ["models", "difference in points", "only the first is right", "only the second", "p, corrected", "verdict"]
    rows = [
        [
            f"{pair['first']} - {pair['second']}",
            f"{100 * pair['difference']:.2f} ({100 * pair['low']:.2f} to {100 * pair['high']:.2f})",
            f"{pair['first_only']:,}",
            f"{pair['second_only']:,}",
            f"{pair['adjusted']:.2g}" if pair["adjusted"] >= 1e-6 else "< 0.000001",
            "better" if pair["is_distinguishable"] else "not distinguishable",
        ]
        for pair in findings["pairs"]
    ]
    return table(header, rows)


def _cost(ranked: Sequence[Candidate]) -> str:
    return _columns(
        ranked,
        {
            "training": lambda c: f"{c.minutes} min",
            "its memory": lambda c: f"{c.run['peak_memory_mb'] / 1024:.1f} GiB",
            "latency p50": lambda c: f"{c.milliseconds} ms",
            "p95": lambda c: f"{c.profile['latency_p95_ms']:.1f} ms",
            "throughput": lambda c: f"{c.profile['throughput_images_per_second']:,.0f} /s",
            "cold load": lambda c: f"{c.profile['cold_load_seconds']:.1f} s",
            "parameters": lambda c: f"{c.profile['num_parameters'] / 1e6:.2f} M",
            "multiply-adds": lambda c: f"{c.profile['multiply_adds'] / 1e6:,.0f} M",
            "weights": lambda c: f"{c.profile['weights_bytes'] / 1e6:.1f} MB",
        },
    )


def _calibration(ranked: Sequence[Candidate]) -> str:
    def before_and_after(key: str, digits: int) -> Callable[[Candidate], str]:
        return lambda c: f"{c.test[key]:.{digits}f} → {c.test[key + '_calibrated']:.{digits}f}"

    return _columns(
        ranked,
        {
            "temperature": lambda c: f"{c.metrics['calibration']['temperature']:.3f}",
            "NLL": before_and_after("nll", 3),
            "ECE": lambda c: f"{c.test['ece']:.2%} → {c.test['ece_calibrated']:.2%}",
            "Brier": before_and_after("brier", 3),
        },
    )


def _conformal(ranked: Sequence[Candidate]) -> str:
    def held(share: str) -> Callable[[Candidate], str]:
        return lambda c: f"{c.test[f'coverage_{share}']:.1%} with {c.test[f'set_size_{share}']:.1f} classes"

    return _columns(ranked, {f"{share} % promised": held(share) for share in ranked[0].metrics["conformal"]})


def _robustness(ranked: Sequence[Candidate]) -> str:
    def share(key: str) -> Callable[[Candidate], str]:
        return lambda c: f"{c.robustness[key]:.1%}"

    return _columns(ranked, {key: share(key) for key in ranked[0].robustness if key != "foreign"})


def _foreign(ranked: Sequence[Candidate]) -> str:
    def said(kind: str) -> Callable[[Candidate], str]:
        return lambda c: (
            f"{c.robustness['foreign'][kind]['flagged']:.1%} ({c.robustness['foreign'][kind]['auroc']:.3f})"
        )

    return _columns(
        ranked,
        {
            "threshold": lambda c: f"{c.metrics['unfamiliar']['threshold']:.3f}",
            "test": lambda c: f"{c.metrics['unfamiliar']['flagged_test']:.1%}",
            **{f"{found['pictures']:,} {kind}": said(kind) for kind, found in ranked[0].robustness["foreign"].items()},
        },
    )


def _errors(findings: Mapping[str, Any], class_names: Sequence[str]) -> str:
    missed, ensemble = findings["missed_by_all"], findings["ensemble"]
    lines = [
        f"- All models miss {missed['pictures']:,} of {findings['pictures']:,} pictures ({missed['share']:.1%}); for "
        f"{missed['same_class']:,} of them all name the same other class. The surest of those are shown below, "
        "with the lowest of the models' probabilities: look there for wrong labels."
    ]
    if findings["agreement"]:
        pairs = "; ".join(f"{row['first']} and {row['second']} {row['share']:.1%}" for row in findings["agreement"])
        gain, low, high = (100 * ensemble[key] for key in ("gain", "gain_low", "gain_high"))
        lines += [
            f"- Agreement, same answer to the same picture: {pairs}.",
            f"- The mean of all models' calibrated probabilities is right for {ensemble['top1']:.2%}: {gain:+.2f} "
            f"points ({low:+.2f} to {high:+.2f}) against {ensemble['best_single']} alone, at the cost of running all; "
            f"for {ensemble['one_is_right']:.2%} at least one model is right.",
        ]
    for model, found in findings["models"].items():
        worst = [
            f"{_said(class_names, pair['first'])} / {_said(class_names, pair['second'])} "
            f"({pair['first_as_second'] + pair['second_as_first']})"
            for pair in found["confused_pairs"][:3]
        ]
        lines.append(f"- Most confused by {model}: {', '.join(worst) or 'none'}.")
    return "\n".join(lines)


def _said(class_names: Sequence[str], label: int) -> str:
    return class_names[label].replace("_", " ")
