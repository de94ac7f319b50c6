"""Stage `profile`: what one trained model costs, measured on this machine."""

import argparse
import json

from stages import classifiers, machine, params, paths
from stages.errors import UserError, one_line_errors
from stages.metrics import cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    classifiers.classifier_class(settings.model(name).classifier).configure(settings.compute)
    try:
        run = json.loads((paths.RUNS / name / "run.json").read_text(encoding="utf-8"))
        training = {"training_seconds": run["seconds"], "training_peak_memory_mb": run["peak_memory_mb"]}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {paths.RUNS / name}/run.json ({error}): run `dvc repro train@{name}`") from error
    classifier = classifiers.load(paths.MODELS / name)
    profile = {
        **cost.measure(classifier, paths.MODELS / name),
        **training,
        "hardware": {**machine.describe(), "threads": settings.compute.threads or machine.describe()["cores"]},
    }
    paths.PROFILES.mkdir(parents=True, exist_ok=True)
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    unfinished = paths.SCRATCH / f"profile-{name}.json"
    unfinished.write_text(json.dumps(profile, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(paths.PROFILES / f"{name}.json")
    print(
        f"{name}: {profile['num_parameters']:,} parameters, {profile['latency_p50_ms']:.1f} ms a picture, "
        f"{profile['throughput_images_per_second']:,.0f} pictures a second in batches"
    )


if __name__ == "__main__":
    with one_line_errors("profile"):
        main()
