"""A sweep as DVC knows it, the queued experiments of one name: how far they are, what they gave, a table of it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from stages.common import paths

_TASK = re.compile(r"^(?P<id>[0-9a-f]{7}) +(?P<name>\S+) .* (?P<status>Queued|Running|Success|Failed) *$", re.MULTILINE)
_WORKERS = re.compile(r"^Worker status: (\d+) active, (\d+) idle *$", re.MULTILINE)


@dataclass(frozen=True)
class Queue:
    """What `dvc queue status` prints.

    tasks: how many of the sweep are Queued, Running, Success, Failed. workers: of the whole queue.
    """

    tasks: Counter[str]
    workers: int

    @classmethod
    def parse(cls, text: str, sweep: str) -> "Queue":
        """From the printed text; ValueError where it is none."""
        workers = _WORKERS.search(text)
        if workers is None:
            raise ValueError(f"no worker status in {text!r}")
        # A task that ends while DVC looks stands there twice, at last as ended.
        tasks = {task["id"]: task["status"] for task in _TASK.finditer(text) if belongs(task["name"], sweep)}
        return cls(Counter(tasks.values()), int(workers[1]) + int(workers[2]))

    @property
    def is_done(self) -> bool:
        """Whether none of the sweep's tasks runs or waits."""
        return not (self.tasks["Queued"] or self.tasks["Running"])

    def __str__(self) -> str:
        done = self.tasks["Success"] + self.tasks["Failed"]
        failed = f" ({self.tasks['Failed']} failed)" if self.tasks["Failed"] else ""
        return (
            f"{done} of {self.tasks.total()} experiments done{failed}, {self.tasks['Running']} running, "
            f"{self.tasks['Queued']} waiting"
        )


@dataclass(frozen=True)
class Experiment:
    """An experiment of a sweep.

    rev: its commit. state: success, failed, running or queued.
    params: dotted paths of params.yaml to values.
    val_top1: share; None unless it ended well.
    """

    name: str
    rev: str
    state: str
    params: Mapping[str, Any]
    val_top1: float | None


@dataclass(frozen=True)
class Setting:
    """Experiments that ended well and differ in nothing but their seed, if in that.

    values: of the parameters that the sweep tried.
    """

    values: tuple[Any, ...]
    experiments: tuple[Experiment, ...]

    @property
    def val_top1s(self) -> list[float]:
        """Shares, one for each experiment."""
        return [experiment.val_top1 for experiment in self.experiments if experiment.val_top1 is not None]

    @property
    def val_top1(self) -> float:
        """The mean."""
        return fmean(self.val_top1s)


def belongs(name: str, sweep: str) -> bool:
    """Whether an experiment is part of the sweep. DVC names them NAME-1, NAME-2 ..., and NAME where it is but one.

    NAME stands for all of NAME-a-1, NAME-b-1 ..., too: the parts of a sweep that several machines shared.
    """
    return name == sweep or name.startswith(f"{sweep}-")


def parse(shown: Sequence[Mapping[str, Any]], sweep: str, model: str) -> list[Experiment]:
    """The experiments of a sweep, from what `dvc exp show --json` prints, in the order of their numbers."""
    experiments = []
    for baseline in shown:
        for entry in baseline.get("experiments") or ():
            if not belongs(entry["name"] or "", sweep):
                continue
            last = entry["revs"][0]
            state = (entry.get("executor") or {}).get("state") or ("failed" if last.get("error") else "success")
            data = last.get("data") or {}
            params = data.get("params", {}).get(str(paths.PARAMS), {}).get("data") or {}
            # A failed one shows measures, too: those that stood in the workspace when it was queued.
            metrics = data.get("metrics", {}).get((paths.METRICS / f"{model}.json").as_posix(), {}).get("data")
            top1 = metrics["val"]["top1"] if metrics and state == "success" else None
            experiments.append(Experiment(entry["name"], last["rev"], state, dict(_flat(params)), top1))
    return sorted(experiments, key=lambda experiment: (len(experiment.name), experiment.name))


def tried(experiments: Sequence[Experiment]) -> list[str]:
    """The parameters that are not the same in all experiments. Seeds repeat a setting, unless nothing else differs."""
    names = dict.fromkeys(name for experiment in experiments for name in experiment.params)
    differing = [name for name in names if len({repr(experiment.params.get(name)) for experiment in experiments}) > 1]
    return [name for name in differing if name != "seed"] or differing


def settings(experiments: Sequence[Experiment], parameters: Sequence[str]) -> list[Setting]:
    """What was tried and ended well, best first; of equals the one tried first."""
    groups: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        if experiment.val_top1 is not None:
            groups.setdefault(repr(_values(experiment, parameters)), []).append(experiment)
    found = [Setting(_values(group[0], parameters), tuple(group)) for group in groups.values()]
    return sorted(found, key=lambda setting: -setting.val_top1)


def short(parameter: str, model: str) -> str:
    """A parameter's name without the section of the model that the sweep is about."""
    return parameter.removeprefix(f"models.{model}.")


def render(
    experiments: Sequence[Experiment],
    parameters: Sequence[str],
    minutes: Mapping[str, float | None],
    *,
    sweep: str,
    model: str,
    picture: str,
) -> str:
    """The sweep in Markdown. The test split has no place here: who chooses by it, cannot measure by it any more.

    experiments: at least one ended well. minutes: of training, by experiment. picture: path, relative to the text.
    """
    names = [short(name, model) for name in parameters]
    ranked = settings(experiments, parameters)
    best = ranked[0]
    rows = [
        [*names, "val top-1", "minutes", "experiment"],
        [*["---:"] * (len(names) + 2), "---"],
        *([*map(_text, s.values), _top1(s, best), _mean_minutes(s, minutes), _names(s)] for s in ranked),
    ]
    repeated = max(len(setting.experiments) for setting in ranked)
    lines = [
        f"# Sweep of {model}: {sweep}",
        f"**Best: {_said(names, best.values)}**, {best.val_top1:.2%} of the validation pictures right. "
        f"`dvc exp apply {best.experiments[0].name}` takes it over.",
        f"![Top-1 on validation]({picture})",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "Ranked by top-1 on validation, the only split that may choose. "
        + (f"Means of up to {repeated} seeds, with lowest and highest" if repeated > 1 else "One training each (n = 1)")
        + ": a difference of a point or two may be luck. Minutes are of training, beside whatever else ran.",
    ]
    failed = [experiment for experiment in experiments if experiment.state == "failed"]
    if failed:
        said = "; ".join(f"{e.name} ({_said(names, _values(e, parameters))})" for e in failed)
        lines.append(f"Failed: {said}. `dvc queue logs NAME` says why.")
    return "\n\n".join(lines) + "\n"


def _values(experiment: Experiment, parameters: Sequence[str]) -> tuple[Any, ...]:
    return tuple(experiment.params.get(name) for name in parameters)


def _said(names: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{name} = {_text(value)}" for name, value in zip(names, values, strict=True))


def _top1(setting: Setting, best: Setting) -> str:
    mean = f"{setting.val_top1:.2%}"
    top1s = setting.val_top1s
    spread = f" ({min(top1s):.2%} to {max(top1s):.2%}, n = {len(top1s)})" if len(top1s) > 1 else ""
    return f"**{mean}**{spread}, the best" if setting is best else f"{mean}{spread}"


def _mean_minutes(setting: Setting, minutes: Mapping[str, float | None]) -> str:
    known = [time for experiment in setting.experiments if (time := minutes.get(experiment.name)) is not None]
    return f"{fmean(known):.1f}" if known else "?"


def _names(setting: Setting) -> str:
    return ", ".join(experiment.name for experiment in setting.experiments)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
