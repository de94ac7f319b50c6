"""The runs of one model with several seeds: children of a parent that holds mean and spread."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from stages.common.files import json_sha256
from stages.tracking.runs import find_runs, log_metrics, now

SEEDS_SHA256 = "seeds_sha256"  # tag of the parent: which trainings it is of


def ensure_parent(
    client: MlflowClient, experiment_id: str, model: str, run_ids: Sequence[str], seeds: Mapping[str, Any]
) -> str:
    """The id of the parent of these runs, with `<split>/top1_mean` and `_std`; created if there is none.

    seeds: the section of that name in reports/metrics.
    """
    children = [client.get_run(run_id) for run_id in run_ids]
    key = json_sha256(sorted(child.data.tags["weights_sha256"] for child in children))
    started, ended = (
        agree(getattr(child.info, name) for child in children)
        for agree, name in ((min, "start_time"), (max, "end_time"))
    )
    found = find_runs(client, experiment_id, {SEEDS_SHA256: key}, "FINISHED")
    if not found:
        tags = {SEEDS_SHA256: key, "model": model}
        parent = client.create_run(experiment_id, started, tags, run_name=f"{model}, {len(children)} seeds")
        client.set_terminated(parent.info.run_id, end_time=ended)
        found = [parent.info.run_id]
    for child in children:
        if child.data.tags.get(MLFLOW_PARENT_RUN_ID) != found[0]:
            client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, found[0])
    known = client.get_run(found[0]).data.metrics
    spread = {f"{split}/top1_{key}": seeds[split][key] for split in ("val", "test") for key in ("mean", "std")}
    new = {name: value for name, value in spread.items() if known.get(name) != value}
    log_metrics(client, found[0], [Metric(name, value, now() if known else ended, 0) for name, value in new.items()])
    return found[0]
