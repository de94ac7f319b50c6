"""The text of the comparison: a verdict from the numbers, a table, pictures, method and limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

# What the three notebooks that this project replaces reached on the test pictures of CIFAR-100 after one epoch, as
# they print it: other code, settings and hardware.
NOTEBOOKS = {
    "notebook: ViT from scratch": 0.164,
    "notebook: ViT-Tiny, head only": 0.43,
    "notebook: MobileNetV3-Large, head only": 0.640,
}


CLEARLY = 1.2  # times: a smaller advantage in cost is not worth a word


@dataclass(frozen=True)
class Candidate:
    """All that is known of a model, as the stages wrote it: metrics, profile and run, parsed from their JSON."""

    name: str
    metrics: Mapping[str, Mapping[str, float]]
    profile: Mapping[str, Any]
    run: Mapping[str, Any]

    @property
    def val_top1(self) -> float:
        return self.metrics["val"]["top1"]

    @property
    def test_top1(self) -> float:
        return self.metrics["test"]["top1"]


def render(candidates: Sequence[Candidate], dataset: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The report in Markdown.

    candidates: any order. dataset: dataset.json. pictures: title to path, relative to the report.
    """
    # Of equals the first, as in the registry's choice of a champion.
    ranked = sorted(candidates, key=lambda candidate: -candidate.val_top1)
    parts = [
        f"# Which classifier to ship on {dataset['source']}?",
        *([DEMO_WARNING] if dataset["source"] == "demo" else []),
        verdict(ranked, dataset),
        "## What was compared",
        _setting(ranked, dataset),
        "## Results",
        _table(ranked),
        "Ranked by top-1 on validation, which alone chose the best; the test pictures chose nothing. Top-1 and top-5: "
        "the right class is the first, or among the first five. Superclass: the class named lies in the right one. "
        "Macro F1: mean over the classes. NLL: negative log-likelihood, in nats. Latency: median for one picture; "
        "throughput: in batches of 64; both from raw pixels to logits, in float32.",
        *(f"![{title}]({path})" for title, path in pictures.items()),
        "## Method and limits",
        _method(ranked, dataset),
    ]
    return "\n\n".join(parts) + "\n"


DEMO_WARNING = (
    "> **Generated pictures.** These models were trained on procedural drawings, from random initial weights unless "
    "stated otherwise. The numbers show that the pipeline works; they say nothing about photographs."
)


def verdict(ranked: Sequence[Candidate], dataset: Mapping[str, Any]) -> str:
    """What to ship, in a few sentences; `ranked` best first."""
    best = ranked[0]
    sentences = [
        f"**Ship {best.name}**: it names the right one of {len(dataset['class_names'])} classes for "
        f"{best.test_top1:.1%} of {dataset['counts']['test']:,} test pictures (chosen for its {best.val_top1:.1%} on "
        f"{dataset['counts']['val']:,} validation pictures), in {_milliseconds(best)} ms a picture, after "
        f"{_minutes(best)} minutes of training."
    ]
    for other in ranked[1:]:
        gap = round((best.test_top1 - other.test_top1) * 100, 1)
        place = f"{abs(gap)} points {'behind' if gap > 0 else 'ahead'} on test" if gap else "equal on test"
        gains = [
            f"{_times(ratio)} {what}"
            for ratio, what in (
                (best.profile["latency_p50_ms"] / other.profile["latency_p50_ms"], "as fast on one picture"),
                (best.profile["weights_bytes"] / other.profile["weights_bytes"], "as small"),
                (best.profile["training_seconds"] / other.profile["training_seconds"], "as quick to train"),
            )
            if ratio >= CLEARLY
        ]
        if gains:
            sentences.append(f"{other.name} is {place}{', but' if gap > 0 else ','} {_listed(gains)}.")
        else:
            sentences.append(f"{other.name} is {place}, and not clearly faster, smaller or quicker to train.")
    return " ".join(sentences)


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times"


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _minutes(candidate: Candidate) -> str:
    return f"{candidate.profile['training_seconds'] / 60:.1f}"


def _milliseconds(candidate: Candidate) -> str:
    return f"{candidate.profile['latency_p50_ms']:.1f}"


def _setting(ranked: Sequence[Candidate], dataset: Mapping[str, Any]) -> str:
    counts = dataset["counts"]
    lines = [
        f"- Data: {dataset['source']} from `{_origin(ranked[0].run)}`, {counts['train']:,} pictures to train on, "
        f"{counts['val']:,} to choose by, {counts['test']:,} to test, content sha256 `{dataset['data_sha256'][:16]}`"
    ]
    for candidate in ranked:
        run = candidate.run
        resolved, hardware = run["resolved"], run["hardware"]
        lines.append(
            f"- {candidate.name}: {_weights(run)}, {run['epochs']} epoch{'s' * (run['epochs'] != 1)} in "
            f"{_minutes(candidate)} minutes on {_device(resolved, hardware)}, {resolved['precision']}, "
            f"{run['peak_memory_mb'] / 1024:.1f} GiB of memory at most"
        )
    return "\n".join(lines)


def _origin(run: Mapping[str, Any]) -> str:
    """The archive the pictures came from: its URL, or its name where it was a local file."""
    parts = urlsplit(run["dataset"]["source"])
    if parts.scheme in ("http", "https"):
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # a password is nobody's business
    return PurePath(parts.path).name


def _weights(run: Mapping[str, Any]) -> str:
    """Which initial weights, for people: their name and hash, never the path they were read from."""
    params, resolved = run["params"], run["resolved"]
    network = params.get("backbone") or (f"MobileNetV3 {params['variant']}" if "variant" in params else "")
    if "image_size" in params:
        network += f" at {params['image_size']} px"
    if resolved["weights"] == "random":
        return ", ".join(filter(None, [network.strip(), "random initial weights"]))
    origin = "from the hub" if resolved["weights"] == "pretrained" else f"`{PurePath(params['weights']).name}`"
    return f"{network.strip()}, pretrained weights {origin} (sha256 `{resolved['weights_sha256'][:16]}`)"


def _device(resolved: Mapping[str, Any], hardware: Mapping[str, Any]) -> str:
    cpu = f"{hardware['cpu']}, {_threads(resolved['threads'])}"
    return cpu if resolved["device"] == "cpu" else f"{resolved['device']} ({cpu})"


def _table(ranked: Sequence[Candidate]) -> str:
    columns = {
        "model": lambda c: c.name,
        "val top-1": lambda c: f"{c.val_top1:.2%}",
        "**test top-1**": lambda c: f"**{c.test_top1:.2%}**",
        "top-5": lambda c: f"{c.metrics['test']['top5']:.2%}",
        "superclass": lambda c: f"{c.metrics['test']['superclass_top1']:.2%}",
        "macro F1": lambda c: f"{c.metrics['test']['macro_f1']:.3f}",
        "NLL": lambda c: f"{c.metrics['test']['nll']:.3f}",
        "training": lambda c: f"{_minutes(c)} min",
        "latency": lambda c: f"{_milliseconds(c)} ms",
        "throughput": lambda c: f"{c.profile['throughput_images_per_second']:,.0f} /s",
        "parameters": lambda c: f"{c.profile['num_parameters'] / 1e6:.2f} M",
        "multiply-adds": lambda c: f"{c.profile['multiply_adds'] / 1e6:,.0f} M",
        "weights": lambda c: f"{c.profile['weights_bytes'] / 1e6:.1f} MB",
    }
    rows = [
        list(columns),
        ["---", *["---:"] * (len(columns) - 1)],
        *([cell(candidate) for cell in columns.values()] for candidate in ranked),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _method(ranked: Sequence[Candidate], dataset: Mapping[str, Any]) -> str:
    lines = [
        f"- Each model was trained once (n = 1; {_for_each(ranked, _seed)}): a difference of a point or two may be "
        "luck.",
        f"- {dataset['dropped_from_train_because_in_test']} training pictures that also appear in the test set were "
        "dropped; "
        f"{dataset['identical_copies_in_train']} copies within training stay on the side of their twin.",
        f"- Validation is a stratified share of {dataset['val_fraction']:.0%} of the training pictures (seed "
        f"{dataset['split_seed']})"
        + (f", every part limited to {dataset['limit_per_class']} a class" if dataset["limit_per_class"] else "")
        + ". Nothing in the pipeline chooses by the test pictures.",
        f"- Latency and throughput were measured on the CPU, {_for_each(ranked, _profiled_on)}; other machines will "
        "differ, and so may the ranking.",
        f"- Versions: {_for_each(ranked, _versions)}.",
    ]
    if dataset["source"] == "cifar100":
        lines.append(
            "- Grey in the figure: what the three notebooks that this project replaces print after one epoch, with "
            "their own code, settings and hardware; n = 1."
        )
    lines.append("- All settings:")
    for candidate in ranked:
        settings = {
            key: PurePath(value).name if key == "weights" else value for key, value in candidate.run["params"].items()
        }
        lines.append(f"  - {candidate.name}: " + ", ".join(f"`{key}: {value}`" for key, value in settings.items()))
    return "\n".join(lines)


def _for_each(candidates: Sequence[Candidate], say: Callable[[Candidate], str]) -> str:
    """What is true of all candidates once; where they differ, each with the names it is true of."""
    said: dict[str, list[str]] = {}
    for candidate in candidates:
        said.setdefault(say(candidate), []).append(candidate.name)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{_listed(names)}: {text}" for text, names in said.items())


def _seed(candidate: Candidate) -> str:
    return f"seed {candidate.run['params']['seed']}"


def _profiled_on(candidate: Candidate) -> str:
    hardware = candidate.profile["hardware"]
    return f"{hardware['cpu']}, {_threads(hardware['threads'])}, {hardware['memory_gb']} GiB, {hardware['system']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _versions(candidate: Candidate) -> str:
    return ", ".join(f"{name} {number}" for name, number in candidate.run["versions"].items())
