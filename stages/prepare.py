"""Stage `prepare`: arrays of train, val, gate and test images from the archive."""

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.data import dataset
from stages.data.sources import cifar_binary, demo
from stages.data.split import split
from stages.models import params


def main() -> None:
    settings = params.read().data
    files = [file for file in paths.RAW.glob("*") if file.is_file()]
    if len(files) != 1:
        raise UserError(f"{paths.RAW} holds {len(files)} files, expected the archive: run `dvc repro download`")
    counts = cifar_binary.CIFAR100
    if settings.source == "demo":
        counts = demo.counts(settings.demo.train_per_class, settings.demo.test_per_class)
    archive = cifar_binary.read(files[0], counts)
    superclass_of_class = cifar_binary.superclass_of_class(archive, files[0])
    parts, dropped, duplicates = split(
        archive, settings.val_fraction, settings.gate_fraction, settings.seed, settings.limit_per_class
    )
    dataset.write(
        paths.PREPARED,
        source=settings.source,
        class_names=archive.class_names,
        superclass_names=archive.superclass_names,
        superclass_of_class=superclass_of_class,
        splits={name: (part.images(), part.labels()) for name, part in parts.items()},
        facts={
            "dropped_from_train_because_in_test": dropped,
            "identical_copies_in_train": duplicates,
            "val_fraction": settings.val_fraction,
            "gate_fraction": settings.gate_fraction,
            "split_seed": settings.seed,
            "limit_per_class": settings.limit_per_class,
        },
    )
    sizes = ", ".join(f"{len(part.classes):,} {name}" for name, part in parts.items())
    print(
        f"prepared {sizes} images of {len(archive.class_names)} classes; dropped {dropped} training images that are in "
        f"test; kept {duplicates} duplicates, each in one split"
    )


if __name__ == "__main__":
    with one_line_errors("prepare"):
        main()
