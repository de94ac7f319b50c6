"""How a classifier learns: batches, loops, checkpoints. Imports stages.models; nothing there imports this."""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from stages.common.errors import UserError
from stages.common.settings import Compute, process_rank
from stages.models.base import Classifier, FinetunedClassifier
from stages.training.batches import Batches, LabeledImages
from stages.training.checkpoints import Checkpoints
from stages.training.head import FeatureCache, fit_head
from stages.training.progress import Progress, Reporter, few_rows, passes


class Spent(NamedTuple):
    """What a training took: passes over the images, in part, too; images seen, those of each pass counted anew;
    optimizer steps (None: a head was fitted at once); and the seconds of a step where they were measured beforehand."""

    epochs: float
    images: int
    steps: int | None = None
    step_seconds: float | None = None


def resolve(classifier: Classifier, compute: Compute) -> None:
    """Note in `classifier.resolved` what a training uses on this machine: device, precision, threads.

    UserError where `compute` asks for what is not there.
    """
    _engine(classifier, "device").resolve(classifier, compute)


def runs_in_processes(classifier: Classifier) -> bool:
    """Whether processes that torchrun or srun started share a training; else rank 0 trains alone."""
    return classifier.engine == "torch_engine" and not _trains_head_alone(classifier)


def fit(
    classifier: Classifier,
    train: LabeledImages,
    val: LabeledImages,
    *,
    epochs: int | None = None,
    images: int | None = None,
    minutes: float | None = None,
    compute: Compute,
    reporter: Reporter | None = None,
    checkpoints: Checkpoints | None = None,
    features: FeatureCache | None = None,
    learning: bool = False,
) -> Spent:
    """Train on `train` and measure on `val` after each pass and at the end; shows a progress bar.

    epochs, images, minutes: one of them, how long: passes, images seen (in whole batches), or the time of so many
    optimizer steps as a short measurement of their speed lets expect, validation not included. A head alone is fitted
    in one pass, whatever they say.
    learning: measure some images of `val` now and then within the training, too, as Reporter.on_learning says.
    reporter: None reports nowhere and shows no bar.
    checkpoints: where to resume from, if there is one, and where to leave others.
    features: where a frozen backbone's features are kept, if the classifier trains a head alone.
    UserError where the loss diverges or memory does not suffice.
    """
    if reporter is None or process_rank() > 0:
        reporter = Reporter(is_silent=True)
    resolve(classifier, compute)
    if _trains_head_alone(classifier):
        assert isinstance(classifier, FinetunedClassifier)
        classifier.resolved["head_C"] = fit_head(classifier, train, val, reporter, features)
        return Spent(1, len(train.labels))
    name, resolved = classifier.settings.classifier, classifier.resolved
    if not reporter.is_silent:
        where = f"{resolved['device']}, {resolved['threads']} CPU threads"
        print(f"{name}: training with seed {classifier.seed} in {resolved['precision']} on {where}", flush=True)
    batches = Batches.of(train, classifier.settings, classifier.seed)
    steps = None if minutes else batches.steps_to(images or (epochs or 0) * len(train.labels))
    few = LabeledImages(*(part[few_rows(val)] for part in val)) if learning else None
    progress = Progress(name, batches, steps, classifier.num_classes, reporter, checkpoints, few, minutes)
    engine = _engine(classifier, "loop")
    try:
        engine.train(classifier, val, progress, compute)
    except Exception as error:
        if not engine.is_out_of_memory(error):
            raise
        raise UserError(
            f"{name}: out of memory with batch_size = {batches.batch_size}: lower it, or the size of images or network"
        ) from error
    finally:
        progress.close()
    seen = batches.images_until(progress.steps)
    return Spent(passes(seen, len(train.labels)), seen, progress.steps, progress.step_seconds)


def _trains_head_alone(classifier: Classifier) -> bool:
    return getattr(classifier.settings, "finetune", "full") == "head"


def _engine(classifier: Classifier, module: str) -> ModuleType:
    return import_module(f"{__name__}.{classifier.engine}.{module}")
