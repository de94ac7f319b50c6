"""Stage `download`: the archive of images, fetched and checked, or drawn for the demo."""

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import replacing_folder
from stages.data.sources import cifar_binary, demo, fetch
from stages.models import params


def main() -> None:
    settings = params.read().data
    if settings.source == "demo":
        archive = demo.generate(settings.demo.train_per_class, settings.demo.test_per_class, settings.seed)
        with replacing_folder(paths.RAW) as folder:
            cifar_binary.write(folder / "demo.tar", archive)
        print(f"drew {len(archive.train.classes):,} training and {len(archive.test.classes):,} test images")
    else:
        file = fetch.fetch(settings.url, settings.sha256, paths.RAW, paths.SCRATCH)
        print(f"{file}: {file.stat().st_size:,} bytes, sha256 as expected")


if __name__ == "__main__":
    with one_line_errors("download"):
        main()
