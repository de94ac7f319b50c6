"""Stage `prepare`: arrays of train, validation and test pictures from the archive."""

from stages.common import params, paths
from stages.common.errors import UserError, one_line_errors
from stages.data import cifar100, cifar_binary, dataset, demo
from stages.data.split import split


def main() -> None:
    settings = params.read().data
    found = sorted(file for file in paths.RAW.glob("*") if file.is_file())
    if len(found) != 1:
        raise UserError(f"{paths.RAW} holds {len(found)} files, expected the archive: run `dvc repro download`")
    [file] = found
    counts = cifar100.COUNTS
    if settings.source == "demo":
        counts = demo.counts(settings.demo.train_per_class, settings.demo.test_per_class)
    archive = cifar_binary.read(file, counts)
    superclass_of_class = cifar_binary.superclass_of_class(archive, file)
    rows = split(
        archive.train,
        archive.test,
        class_names=archive.class_names,
        val_fraction=settings.val_fraction,
        seed=settings.seed,
        limit=settings.limit_per_class,
    )
    parts = {
        "train": archive.train.select(rows.train),
        "val": archive.train.select(rows.val),
        "test": archive.test.select(rows.test),
    }
    dataset.write(
        paths.PREPARED,
        paths.SCRATCH / "prepared",
        source=settings.source,
        class_names=archive.class_names,
        superclass_names=archive.superclass_names,
        superclass_of_class=superclass_of_class,
        splits={name: (part.images(), part.labels()) for name, part in parts.items()},
        facts={
            "dropped_from_train_because_in_test": rows.dropped_from_train,
            "identical_copies_in_train": rows.identical_in_train,
            "val_fraction": settings.val_fraction,
            "split_seed": settings.seed,
            "limit_per_class": settings.limit_per_class,
        },
    )
    sizes = ", ".join(f"{len(part.classes):,} {name}" for name, part in parts.items())
    print(
        f"prepared {sizes} pictures of {len(archive.class_names)} classes; dropped {rows.dropped_from_train} training "
        f"pictures that stand in test; kept {rows.identical_in_train} copies on the side of their twin"
    )


if __name__ == "__main__":
    with one_line_errors("prepare"):
        main()
