"""What was compared, how, and what the comparison cannot tell."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from stages.report.candidate import Candidate, for_each

# Of run.json, in comparison.json.
TOLD = ("epochs", "seconds", "peak_memory_mb", "resolved", "hardware", "versions", "weights_sha256", "data_sha256")


def published(run: Mapping[str, Any]) -> dict[str, Any]:
    """What comparison.json tells of a training, enough to write the report again; of files their names only."""
    return {**{key: run[key] for key in TOLD}, "params": _settings(run), "dataset": {"source": _origin(run)}}


def setting(ranked: Sequence[Candidate], dataset: Mapping[str, Any]) -> str:
    """Data, weights, budget and hardware of each model."""
    counts = dataset["counts"]
    lines = [
        f"- Data: {dataset['source']} from `{_origin(ranked[0].run)}`, {counts['train']:,} pictures to train on, "
        f"{counts['val']:,} to choose by, {counts['test']:,} to test, content sha256 `{dataset['data_sha256'][:16]}`"
    ]
    for candidate in ranked:
        run = candidate.run
        resolved, hardware = run["resolved"], run["hardware"]
        lines.append(
            f"- {candidate.name}: {_weights(run)}, {run['epochs']} epoch{'s' * (run['epochs'] != 1)}{_share(run)} in "
            f"{candidate.minutes} minutes on {_device(resolved, hardware)}, {resolved['precision']}, "
            f"{run['peak_memory_mb'] / 1024:.1f} GiB of memory at most; measured on its ONNX file (sha256 "
            f"`{candidate.profile['onnx_sha256'][:16]}`)"
        )
    return "\n".join(lines)


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: PurePath(value).name if key == "weights" else value for key, value in run["params"].items()}


def _share(run: Mapping[str, Any]) -> str:
    share = float(run["params"].get("train_fraction", 1.0))
    return f" of {share:.0%} of the training pictures" if share < 1 else ""


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


def method(ranked: Sequence[Candidate], dataset: Mapping[str, Any]) -> str:
    """How it was measured, and all settings."""
    lines = [
        f"- Each model was trained once (n = 1; {for_each(ranked, _seed)}). The intervals and tests tell the luck of "
        "the pictures, not that of the training: with another seed a model may come out a point higher or lower.",
        "- Intervals: 95 %, percentile bootstrap over the test pictures, 10,000 resamples. Differences: on the same "
        "pictures, McNemar's exact test, p-values corrected for all pairs by Holm's method; two models are told apart "
        "where the corrected p is below 0.05.",
        "- Temperature and thresholds (of sets, of unfamiliar pictures) are fitted on validation, and in-sample there.",
        f"- {dataset['dropped_from_train_because_in_test']} training pictures that also appear in the test set were "
        "dropped; "
        f"{dataset['identical_copies_in_train']} copies within training stay on the side of their twin.",
        f"- Validation is a stratified share of {dataset['val_fraction']:.0%} of the training pictures (seed "
        f"{dataset['split_seed']})"
        + (f", every part limited to {dataset['limit_per_class']} a class" if dataset["limit_per_class"] else "")
        + ". Nothing in the pipeline chooses by the test pictures.",
        f"- Latency and throughput were measured on the CPU, {for_each(ranked, _profiled_on)}; other machines will "
        "differ, and so may the ranking.",
        f"- Versions: {for_each(ranked, _versions)}.",
    ]
    if dataset["source"] == "cifar100":
        lines.append(
            "- Grey in the figure: what the three notebooks that this project replaces print after one epoch, with "
            "their own code, settings and hardware; n = 1."
        )
    lines.append("- All settings:")
    for candidate in ranked:
        settings = _settings(candidate.run)
        lines.append(f"  - {candidate.name}: " + ", ".join(f"`{key}: {value}`" for key, value in settings.items()))
    return "\n".join(lines)


def _seed(candidate: Candidate) -> str:
    return f"seed {candidate.run['params']['seed']}"


def _profiled_on(candidate: Candidate) -> str:
    hardware = candidate.profile["hardware"]
    return f"{hardware['cpu']}, {_threads(hardware['threads'])}, {hardware['memory_gb']} GiB, {hardware['system']}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _versions(candidate: Candidate) -> str:
    return ", ".join(f"{name} {number}" for name, number in candidate.run["versions"].items())
