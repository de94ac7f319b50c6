"""The text about what answers cost: goals with verdicts, a table, method. All of it from reports/serving.json."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

# What a classifier's file should reach against its framework: at batch 1, in batches. Others: no less than that.
SPEEDUPS = {"vit_scratch": (1.35, 1.25), "vit_transfer": (1.35, 1.25), "mobilenet_transfer": (3.0, 1.0)}
ANY_SPEEDUP = (1.0, 1.0)

COLUMNS = {
    "p50_ms": ("one image, p50", "{:.1f} ms"),
    "p95_ms": ("p95", "{:.1f} ms"),
    "images_per_second": ("images/s", "{:,.0f}"),
    "memory_mb": ("peak RAM", "{:,.0f} MiB"),
    "cold_start_seconds": ("cold start", "{:.1f} s"),
}
METHOD = """\
- Weights: {weights}: time depends on the graph alone. Images: {data}, {image_size} px.
- Code: {code}. Versions: {versions}. Hardware: {hardware}; threads: {threads} (the server and the command line take \
one for each core), all in float32. Load average before, from whatever else ran there: {load:.1f}.
- Rounds: n = {rounds}, {minutes:.0f} minutes in all. Figures are medians of the rounds, those of the goals medians \
of each round's own ratio or difference, with the lowest and the highest. In a round of a model come framework, ONNX \
file, HTTP, files, ONNX file, framework, one after the other, each in a process of its own; of the two measurements \
before and after, the mean counts.
- Forward pass: uint8 images to logits, {seconds:g} s for single images and {seconds:g} s for batches of {batch}, \
after some calls that do not count. Cold start: from starting Python to the first answer; peak RAM: until then.
- HTTP: {requests} requests a round to `python -m gui.server`, `POST /classify` with one JPEG of {image_size} px each, \
one after the other over one connection, the client's own time included.
- Files: PNG files of {image_size} px through `python -m gui.classify --csv`, reading and writing included, loading \
the model not; peak RAM: of the whole process."""


class Goal(NamedTuple):
    """What a figure should reach in the median of the rounds. form: of its values, for people."""

    figure: str
    words: str
    form: str
    relation: str
    limit: float


def goals(classifier: str) -> list[Goal]:
    """The goals of a classifier, by its name in stages/classifiers; the figures are those of `figures`."""
    single, batches = SPEEDUPS.get(classifier, ANY_SPEEDUP)
    return [
        Goal("speedup_single", "one image, ONNX file against framework", "{:.2f}x", "at least", single),
        Goal("speedup_batches", "batches, ONNX file against framework", "{:.2f}x", "at least", batches),
        Goal("http_ms", "one JPEG over HTTP, beyond the forward pass", "{:.1f} ms", "at most", 4.0),
        Goal("files_share", "images/s from files, against the forward pass", "{:.1%}", "at least", 0.95),
        Goal("memory_growth", "peak RAM with all files, against few", "{:.2f}x", "at most", 1.05),
    ]


def figures(one: Mapping[str, Any]) -> dict[str, float]:
    """What the goals are about, of one round: measured close in time, so that a machine's swings weigh on both."""
    framework, onnx = one["framework"], one["onnx"]
    return {
        "speedup_single": framework["p50_ms"] / onnx["p50_ms"],
        "speedup_batches": onnx["images_per_second"] / framework["images_per_second"],
        "http_ms": one["http"]["p50_ms"] - onnx["p50_ms"],
        "files_share": one["files"]["images_per_second"] / onnx["images_per_second"],
        "memory_growth": one["files"]["memory_mb"] / one["few"]["memory_mb"],
    }


def verdicts(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether each model meets each of its goals. value: the median of the rounds, which decides; low, high: theirs."""
    found = []
    for name, model in models.items():
        rounds = [figures(one) for one in model["rounds"]]
        for goal in goals(model["settings"]["classifier"]):
            values = [one[goal.figure] for one in rounds]
            value = median(values)
            met = value >= goal.limit if goal.relation == "at least" else value <= goal.limit
            ends = {"low": min(values), "high": max(values)}
            found.append({"model": name, **goal._asdict(), "value": value, **ends, "met": met})
    return found


def headline(judged: Sequence[Mapping[str, Any]]) -> str:
    """How many goals are met, and which are not."""
    missed = [
        f"{one['model']}, {one['words']}: {one['form'].format(one['value'])} instead of {one['relation']} "
        f"{one['form'].format(one['limit'])}"
        for one in judged
        if not one["met"]
    ]
    met = f"{len(judged) - len(missed)} of {len(judged)} goals are met"
    return f"{met}. Not met: {'; '.join(missed)}." if missed else f"{met}."


def render(found: Mapping[str, Any]) -> str:
    """The report in Markdown, of what `stages.tools.bench.serving` measured."""
    parts = ["# Answers: the ONNX file, against its framework, over HTTP and from files", headline(found["verdicts"])]
    parts += ["## Goals", _goals(found["verdicts"]), "## Measured", _measured(found), "## Method", _method(found)]
    return "\n\n".join(parts) + "\n"


def _goals(judged: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in judged:
        value, low, high, limit = (one["form"].format(one[key]) for key in ("value", "low", "high", "limit"))
        verdict = "met" if one["met"] else "**not met**"
        rows.append([one["model"], one["words"], f"{one['relation']} {limit}", f"{value} ({low} to {high})", verdict])
    return _table(["model", "figure", "goal", "measured", "verdict"], rows)


def _measured(found: Mapping[str, Any]) -> str:
    rows = []
    for name, model in found["models"].items():
        ways = {
            "framework": model["framework"],
            "onnx": f"ONNX file, openvino {found['versions']['openvino']}",
            "http": "HTTP",
            "few": f"{found['few_images']:,} files",
            "files": f"{found['images']:,} files",
        }
        for way, words in ways.items():
            known = model["rounds"][0][way]
            cells = [
                form.format(median(one[way][key] for one in model["rounds"])) if key in known else ""
                for key, (_, form) in COLUMNS.items()
            ]
            rows.append([name, words, *cells])
    return _table(["model", "way", *(words for words, _ in COLUMNS.values())], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


def _method(found: Mapping[str, Any]) -> str:
    changed = " with uncommitted changes" if found["uncommitted_changes"] else ""
    hardware = "{cpu}, {cores} cores, {memory_gb} GiB, {system}, Python {python}".format(**found["hardware"])
    return METHOD.format(
        **{key: found[key] for key in found.keys() - {"hardware", "versions", "models", "verdicts"}},
        code=f"commit {found['commit']}{changed}" if found["commit"] else "of no known commit",
        hardware=hardware,
        versions=", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        rounds=len(next(iter(found["models"].values()))["rounds"]),
    )
