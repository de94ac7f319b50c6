"""The benchmark's text: a headline from the numbers, a table, method and limits."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Rounds = Sequence[Mapping[str, Any]]

WAYS = (
    "Ours: `fit`, as the stage `train` calls it, checkpoints and MLflow included. The notebook way: the same network "
    "and batch size; each picture cropped, mirrored, resized and normalised by itself (torch: PIL transforms of "
    "torchvision in a DataLoader with {workers} workers; Keras: a tf.data map); float32; plain AdamW (torch) or Adam "
    "(Keras) with a constant rate. Both train all layers, from random initial weights, whatever params.yaml says of "
    "`weights` and `finetune`: a step takes no longer with one number than with another. (But a pretrained MobileNetV3 "
    "leaves BatchNorm as it is and first trains its head alone: both save time, and are not measured here.)"
)


def render(benchmark: Mapping[str, Any]) -> str:
    """The report in Markdown, of what `python -m stages.tools.bench` measured (reports/benchmark.json)."""
    models: Mapping[str, Mapping[str, Rounds]] = benchmark["models"]
    rounds = len(next(iter(models.values()))["ours"])
    parts = [
        "# Training, against the notebook way",
        headline(models),
        _setting(benchmark, rounds),
        _table(
            [
                "training",
                "images/s",
                "notebook way",
                "**ours / notebook**",
                "memory",
                "notebook way",
                "**ours / notebook**",
            ],
            [[name, *_training(each["ours"], each["notebook"])] for name, each in models.items()],
        ),
        f"Medians of {rounds}; in brackets the lowest and the highest ratio of a round. Memory: the most that the "
        "training process held; the processes that load pictures for the notebook way come on top of its figure.",
        _table(
            ["ours", "step", "the model's own", "**share of the rest**", "a checkpoint", "forward, images/s"],
            [[name, *_parts(each["ours"], benchmark["checkpoint_minutes"])] for name, each in models.items()],
        ),
        "Model's own: forward, backward and optimizer step on one batch that lies ready. The rest: data, augmentation, "
        f"progress, reports, and checkpoints at the rate of one every {benchmark['checkpoint_minutes']:g} minutes. A "
        "share below zero is noise; where fewer than 20 steps a round are measured, no report falls among them. "
        "Forward: raw pictures to logits in float32, in batches of 64.",
        "## Time to the notebook's accuracy",
        _epoch(benchmark["epoch"]),
        "## Method and limits",
        _method(benchmark),
    ]
    return "\n\n".join(parts) + "\n"


def headline(models: Mapping[str, Mapping[str, Rounds]]) -> str:
    """How many times as fast, and with how much of the memory."""
    said = []
    for name, each in models.items():
        speed, memory = _ratios(each, "images_per_second"), _ratios(each, "peak_memory_mb")
        said.append(f"{name} **{median(speed):.2f} times** as fast, with {median(memory):.2f} times the memory")
    return f"Training compared with the notebook way, on this machine: {'; '.join(said)}."


def share_of_the_rest(ours: Rounds, checkpoint_minutes: float) -> list[float]:
    """For each round the share of training time that is not the model's own; noise can bring it below zero."""
    shares = []
    for one in ours:
        checkpoints = 1 + one["checkpoint_seconds"] / (60 * checkpoint_minutes)
        shares.append(1 - one["model_step_seconds"] / (one["step_seconds"] * checkpoints))
    return shares


def _ratios(each: Mapping[str, Rounds], key: str) -> list[float]:
    # Of neighbours in time, so that a machine that slows down meanwhile weighs on both.
    return [ours[key] / notebook[key] for ours, notebook in zip(each["ours"], each["notebook"], strict=True)]


def _median(rounds: Rounds, key: str) -> float:
    return median(one[key] for one in rounds)


def _with_range(values: Sequence[float], form: str) -> str:
    return f"**{median(values):{form}}** ({min(values):{form}} to {max(values):{form}})"


def _training(ours: Rounds, notebook: Rounds) -> list[str]:
    each = {"ours": ours, "notebook": notebook}
    return [
        f"{_median(ours, 'images_per_second'):,.1f}",
        f"{_median(notebook, 'images_per_second'):,.1f}",
        _with_range(_ratios(each, "images_per_second"), ".2f"),
        f"{_median(ours, 'peak_memory_mb'):,.0f} MiB",
        f"{_median(notebook, 'peak_memory_mb'):,.0f} MiB",
        _with_range(_ratios(each, "peak_memory_mb"), ".2f"),
    ]


def _parts(ours: Rounds, checkpoint_minutes: float) -> list[str]:
    return [
        f"{_median(ours, 'step_seconds') * 1e3:,.1f} ms",
        f"{_median(ours, 'model_step_seconds') * 1e3:,.1f} ms",
        _with_range(share_of_the_rest(ours, checkpoint_minutes), ".1%"),
        f"{_median(ours, 'checkpoint_seconds') * 1e3:,.0f} ms",
        f"{_median(ours, 'forward_images_per_second'):,.1f}",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _setting(benchmark: Mapping[str, Any], rounds: int) -> str:
    hardware = benchmark["hardware"]
    lines = [
        f"- Data: {benchmark['data']}",
        "- Weights: random",
        f"- Hardware: {hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GiB, {hardware['system']}, "
        f"Python {hardware['python']}",
        f"- n = {rounds} rounds, the two ways by turns, each measurement in a process of its own; "
        f"{benchmark['minutes']:.1f} minutes in all",
    ]
    for name, each in benchmark["models"].items():
        ours, notebook = each["ours"][0], each["notebook"][0]
        steps = [sorted({one["steps"] for one in each[way]}) for way in ("ours", "notebook")]
        shown = [f"{found[0]} to {found[-1]}" if len(found) > 1 else str(found[0]) for found in steps]
        settings = benchmark["settings"][name]
        size = f"{settings['image_size']} px, " if "image_size" in settings else ""
        lines.append(
            f"- {name}: {ours['num_parameters'] / 1e6:.2f} M parameters, {size}batches of {settings['batch_size']}, "
            f"{ours['device']}, CPU threads: {ours['threads']}; ours in {ours['precision']}, {shown[0]} steps a round; "
            f"the notebook way in {notebook['precision']}, {shown[1]} steps a round"
        )
    return "\n".join(lines)


def _epoch(epoch: Mapping[str, Any] | None) -> str:
    if epoch is None:
        return "Not measured in this run: `python -m stages.tools.bench --epochs` does, and trains for an epoch or two."
    notebook, ours = epoch["notebook"], epoch["ours"]
    recipe = (
        "The notebook's recipe (a plain ViT of depth 4 with CLS token, AdamW with rate 0.001, batches of 64, the rest "
        f"as above) gets {notebook['top1']:.1%} of {notebook['val_pictures']:,} validation pictures right after its "
        f"one epoch, which takes {notebook['seconds']:,.0f} s."
    )
    if ours["seconds"] is None:
        return f"{recipe} {epoch['model']} does not pass that within an epoch: it ends with {ours['top1']:.1%}."
    return (
        f"{recipe} {epoch['model']} passes that after {ours['seconds']:,.0f} s (step {ours['step']:,}, "
        f"{ours['top1']:.1%}), in **{ours['seconds'] / notebook['seconds']:.2f} times** that time. n = 1; validation "
        "is left out of both."
    )


def _method(benchmark: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in benchmark["versions"].items())
    lines = [
        WAYS.format(workers=benchmark["workers"]),
        f"The first {benchmark['warm_up']} steps of each measurement are left out. Slow models are measured for few "
        "steps: the brackets say how far rounds differ.",
        "Peaks of memory are those of training alone, on a part of the pictures; a first validation can need more.",
        f"Versions: {versions}.",
    ]
    return "\n".join(f"- {line}" for line in lines)
