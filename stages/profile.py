"""Stage `profile`: what one exported model costs, measured on this machine's CPU."""

from stages.common import hardware, paths
from stages.common.errors import one_line_errors
from stages.common.files import read_json, write_json
from stages.evaluation import cost
from stages.inference.exported import Exported
from stages.models import params


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    threads = settings.compute.cpu_threads
    exported = Exported.open(name)
    run = read_json(paths.RUNS / name / str(exported.seed) / "run.json", f"run `dvc repro train@{name}`")
    profile = {
        "onnx_sha256": exported.sha256,
        "precision": exported.precision,
        **{key: exported.description[key] for key in ("num_parameters", "multiply_adds")},
        **cost.measure(exported.load(threads), exported.file, threads),
        "training_seconds": run["seconds"],
        "training_peak_memory_mb": run["peak_memory_mb"],
        "hardware": {**hardware.describe(), "threads": threads},
    }
    write_json(paths.PROFILES / f"{name}.json", profile)
    print(
        f"{name}: {profile['num_parameters']:,} parameters, {profile['latency_p50_ms']:.1f} ms an image, "
        f"{profile['throughput_images_per_second']:,.0f} images a second in batches"
    )


if __name__ == "__main__":
    with one_line_errors("profile"):
        main()
