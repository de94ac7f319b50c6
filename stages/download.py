"""Stage `download`: the archive of pictures, fetched and checked, or drawn for the demo."""

from stages.common import params, paths
from stages.common.errors import one_line_errors
from stages.data import cifar_binary, demo, fetch

DEMO_ARCHIVE = "demo.tar"


def main() -> None:
    settings = params.read().data
    if settings.source == "demo":
        paths.SCRATCH.mkdir(parents=True, exist_ok=True)
        paths.RAW.mkdir(parents=True, exist_ok=True)
        unfinished = paths.SCRATCH / DEMO_ARCHIVE
        archive = demo.generate(settings.demo.train_per_class, settings.demo.test_per_class, settings.seed)
        cifar_binary.write(unfinished, archive)
        for other in paths.RAW.iterdir():
            other.unlink()
        unfinished.replace(paths.RAW / DEMO_ARCHIVE)
        print(f"drew {len(archive.train.classes):,} training and {len(archive.test.classes):,} test pictures")
    else:
        file = fetch.fetch(settings.url, settings.sha256, paths.RAW, paths.SCRATCH)
        print(f"{file}: {file.stat().st_size:,} bytes, sha256 as expected")


if __name__ == "__main__":
    with one_line_errors("download"):
        main()
