"""Stage `profile`: what one trained model costs, measured on this machine's CPU."""

import argparse

from stages import classifiers, machine, outputs, params, paths
from stages.errors import one_line_errors
from stages.metrics import cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    # All on the CPU, or the figures of two frameworks would not compare.
    compute = settings.compute.on_cpu
    classifiers.classifier_class(settings.model(name).classifier).configure(compute)
    run = outputs.read_json(paths.RUNS / name / "run.json", f"run `dvc repro train@{name}`")
    classifier = classifiers.load(paths.MODELS / name)
    profile = {
        **cost.measure(classifier, paths.MODELS / name),
        "training_seconds": run["seconds"],
        "training_peak_memory_mb": run["peak_memory_mb"],
        "hardware": {**machine.describe(), "threads": compute.cpu_threads},
    }
    outputs.write_json(paths.PROFILES / f"{name}.json", profile)
    print(
        f"{name}: {profile['num_parameters']:,} parameters, {profile['latency_p50_ms']:.1f} ms a picture, "
        f"{profile['throughput_images_per_second']:,.0f} pictures a second in batches"
    )


if __name__ == "__main__":
    with one_line_errors("profile"):
        main()
