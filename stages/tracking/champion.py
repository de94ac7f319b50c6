"""The alias `champion` of a registered model: which version bears it, which takes over, and the way back.

What cannot be compared with the champion does not replace it; a champion that is gone or damaged is replaced. Where the
store or this machine fails, nothing is decided. What a person chose stands until something newer is registered.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import load_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.tracking.card import with_sentence
from stages.tracking.gate import FEWEST_IMAGES, Candidate, Gate, PairedComparison, hashes, ranking
from stages.tracking.package import files_sha256
from stages.tracking.runs import now, to_iso
from stages.tracking.store import Store

CHAMPION = "champion"
CHALLENGER = "challenger"
TRAINING_IMAGES = "training_pictures.npy"  # in a package: (N,) uint64, see gate.hashes

# Tags of a version. Aliases keep no history: these do.
PROMOTED, DEMOTED, ROLLED_BACK = "promoted_at", "demoted_at", "rolled_back_at"  # times, ISO 8601
EARLIER_PERIODS = "earlier_reigns"  # of a version that is champion again: JSON, [promoted, demoted, rolled back] each
GATE = "gate"  # the sentence that made it champion, challenger or neither
PROMOTION = "promotion"  # how it came to be champion
FILES_SHA256 = "files_sha256"  # of all files of its package
COMPARED = "gate_match"  # its comparison with a champion, as JSON
PACKAGE_SHA256 = "package_sha256"  # of the metadata: ONNX file, data, classes, thresholds, format
# Tags of the registered model: when a person chose the champion, and the last version that they had to choose from.
CHOSEN, CHOSEN_AMONG = "champion_chosen_at", "champion_chosen_among"


@dataclass(frozen=True)
class Validation:
    """The present validation split: images (N, H, W, 3) uint8, labels (N,) int64, and what tells it from others."""

    images: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    data_sha256: str


@dataclass(frozen=True)
class RegisteredCandidate(Candidate):
    """A model that was registered just now. right: (N,) bool, on which validation images its top-1 is right."""

    version: ModelVersion
    right: np.ndarray

    @property
    def number(self) -> str:
        return str(self.version.version)  # a number or a text, depending on the store


@dataclass(frozen=True)
class Decision:
    """champion: its version; model: its name; reason: one sentence with the numbers it rests on."""

    champion: str
    model: str
    weights_sha256: str
    reason: str


class _IncomparableError(Exception):
    """The champion works, but there is no fair comparison with it."""


class _BrokenError(Exception):
    """The champion's package is gone or damaged: it would not load another time either."""


def decide(
    client: MlflowClient, name: str, candidates: Sequence[RegisteredCandidate], val: Validation, gate: Gate
) -> Decision:
    """Compare the best candidate with the present champion; sets champion, challenger and the tags of both.

    The store must be MLflow's default one. UserError where the champion could not be loaded; it stays what it is.
    """
    former = _bearer(client, name)
    # Registered again under another number, where the old version is out of reach: the same model all the same.
    same = [c for c in candidates if former and c.version.tags[PACKAGE_SHA256] == former.tags.get(PACKAGE_SHA256)]
    champion = same[0].version if same else former
    problem = _out_of_reach(client, champion) if champion else None
    held = _held_back(client, name, candidates, champion) if champion and not problem else set()
    order = [candidate for candidate in ranking(candidates) if candidate.model not in held]
    if champion and not order:
        moment = client.get_registered_model(name).tags[CHOSEN]
        sentence = f"{_label(champion)} stays champion, made so by hand on {moment}; registered by then: "
        return _settle(client, name, candidates, former, champion, sentence + _listed(candidates))

    best = order[0]
    ranked = _ranked(order) + (f", held back since a person chose: {_listed(sorted(held))}" if held else "")
    if champion is None or best.version.version == champion.version:
        promotion = former.tags.get(PROMOTION) if former else None
        sentence = f"{ranked}; {promotion}" if promotion else ranked
        return _settle(client, name, candidates, former, best.version, sentence, promotion)

    try:
        if problem:
            raise _BrokenError(problem)
        comparison = _compare(client, best, champion, same[0].right if same else None, val)
        is_same_network = best.version.tags["weights_sha256"] == champion.tags.get("weights_sha256")
        if is_same_network and comparison.difference >= 0:
            takes_over, reason = True, f"the same weights packaged anew, {comparison}"
        else:
            takes_over, reason = gate.passes(comparison), f"{comparison} ({gate})"
    except _IncomparableError as incomparable:
        takes_over, reason = gate.rule == "always", f"they could not be compared, {incomparable} ({gate})"
    except _BrokenError as broken:
        promotion = f"it took over from {_label(champion)}, which does not work: {broken}"
        return _settle(client, name, candidates, former, best.version, f"{ranked}; {promotion}", promotion)
    if takes_over:
        promotion = f"it took over from {_label(champion)}: {reason}"
        sentence = f"{ranked}; {promotion}"
        return _settle(client, name, candidates, former, best.version, sentence, promotion, challenger=champion)
    sentence = (
        f"{_label(champion)} stays champion; {best.model} (version {best.number}), the best of {_listed(order)}, is "
        f"challenger: {reason}"
    )
    return _settle(client, name, candidates, former, champion, sentence, challenger=best.version)


def roll_back(store: Store, name: str, to: str | None = None) -> str:
    """Make the version that was champion before champion again, or the version `to`; says so in one sentence.

    Versions registered until now do not take over any more by being registered again. UserError where there is no such
    model or version, or none that works.
    """
    with store.lock("registration"), store.as_default():
        client = store.client()
        try:
            client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            names = ", ".join(model.name for model in client.search_registered_models()) or "none"
            raise UserError(f"{store.shown_uri} has no registered model {name}: it has {names}") from error
        versions = versions_of(client, name)
        former = _bearer(client, name)
        target = _named(versions, to) if to else _previous(client, versions, former)
        if target is None:
            raise UserError(f"no version of {name} was champion before: choose with --to one of {_numbers(versions)}")
        if former and target.version == former.version:
            raise UserError(f"{_label(target)} is champion already: choose another one of {_numbers(versions)}")
        if problem := _out_of_reach(client, target):
            raise UserError(
                f"{_label(target)} cannot be champion, {problem}: choose another one of {_numbers(versions)}"
            )
        moment = to_iso(now())
        instead = f" in place of {_label(former)}" if former else ""
        reason = f"made champion by hand on {moment}{instead}"
        for key, value in ((CHOSEN, moment), (CHOSEN_AMONG, str(max(int(v.version) for v in versions)))):
            client.set_registered_model_tag(name, key, value)
        if former:
            client.set_model_version_tag(name, str(former.version), ROLLED_BACK, moment)
        sentence = f"{_label(target)} was {reason}"
        set_tags(client, target, {GATE: sentence, PROMOTION: f"it was {reason}"})
        for version in (target, former) if former else (target,):
            describe(client, version, with_sentence(version.description, sentence))
        _move(client, name, former, target, challenger=None)
        return f"{_label(target)} is champion{instead}"


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions, newest first."""
    versions: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        versions += page
        token = page.token
        if not token:
            return sorted(versions, key=lambda version: -int(version.version))


def set_tags(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Set what differs."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, str(version.version), key, value)


def describe(client: MlflowClient, version: ModelVersion, description: str) -> ModelVersion:
    """Write the description where it differs; returns the version as it is then."""
    if version.description == description:
        return version
    return client.update_model_version(version.name, str(version.version), description)


def model_id(version: ModelVersion) -> str:
    """Id of the logged model that a version holds."""
    # Not every store fills version.model_id.
    return (version.source or "").removeprefix("models:/")


def _bearer(client: MlflowClient, name: str) -> ModelVersion | None:
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, str(number)) if number is not None else None


def _held_back(
    client: MlflowClient, name: str, candidates: Sequence[RegisteredCandidate], champion: ModelVersion
) -> set[str]:
    """The models that a person could have chosen, and did not."""
    last = client.get_registered_model(name).tags.get(CHOSEN_AMONG)
    if last is None:
        return set()
    seen = [version.tags for version in versions_of(client, name) if int(version.version) <= int(last)]
    # The champion's own weights may come back packaged anew, but not in a package that was turned down.
    packages = {tags.get(PACKAGE_SHA256) for tags in seen} - {champion.tags.get(PACKAGE_SHA256)}
    weights = {tags.get("weights_sha256") for tags in seen} - {champion.tags.get("weights_sha256")}
    return {
        candidate.model
        for candidate in candidates
        if candidate.version.tags[PACKAGE_SHA256] in packages or candidate.version.tags["weights_sha256"] in weights
    }


def _compare(
    client: MlflowClient,
    best: RegisteredCandidate,
    champion: ModelVersion,
    right: np.ndarray | None,
    val: Validation,
) -> PairedComparison:
    """Both on the same images. right: of the champion, where it is known because it was registered now, too."""
    if right is not None:
        return PairedComparison.of(best.right, right)
    sha256 = champion.tags.get(PACKAGE_SHA256)
    known = json.loads(best.version.tags.get(COMPARED, "{}"))
    if sha256 and known.pop(PACKAGE_SHA256, None) == sha256:
        return PairedComparison(**known)  # from an earlier registration: no need to load the champion
    right, rows = _right(champion, val)
    comparison = PairedComparison.of(best.right[rows], right)
    set_tags(client, best.version, {COMPARED: json.dumps({PACKAGE_SHA256: sha256, **asdict(comparison)})})
    return comparison


def _right(champion: ModelVersion, val: Validation) -> tuple[np.ndarray, np.ndarray]:
    """On which of the validation images that it was not trained on the champion's top-1 is right (n,) bool; their rows.

    The version itself is run, as it answers in the app.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = Path(download_artifacts(f"models:/{champion.name}/{champion.version}", dst_path=temporary))
        except Exception as error:
            raise _BrokenError(_line(error)) if is_gone(error) else not_loaded(champion, error) from error
        try:
            metadata = Model.load(folder).metadata or {}
            if metadata.get("format") != onnx_model.FORMAT:  # of its code nothing is run: the app would refuse it, too
                raise _BrokenError("it was registered by another release of this project")
            model = load_model(str(folder), suppress_warnings=True)
        except _BrokenError:
            raise
        except Exception as error:  # packaged code, and whatever MLflow raises
            raise _failure(champion, folder, error) from error
        if metadata.get("class_names") != val.class_names:
            raise _IncomparableError("for it has other classes")
        rows = np.arange(len(val.labels))
        if metadata.get("data_sha256") != val.data_sha256:
            rows = _unseen(folder / TRAINING_IMAGES, val)
        try:
            predicted = np.asarray(model.predict(val.images[rows])).argmax(axis=1)
        except Exception as error:
            raise _failure(champion, folder, error) from error
    return predicted == val.labels[rows], rows


def _failure(version: ModelVersion, folder: Path, error: Exception) -> Exception:
    """What to raise where the package in `folder` does not load or predict.

    Whoever registered it had run it: intact, it fails for what this machine lacks, memory, a library, a driver.
    """
    is_damaged = version.tags.get(FILES_SHA256) not in (None, files_sha256(folder))
    return _BrokenError(_line(error)) if is_damaged else not_loaded(version, error)


def _unseen(file: Path, val: Validation) -> np.ndarray:
    """Rows of the validation images that are not among those of the file."""
    try:
        seen = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _IncomparableError("for its data were others, and it does not say which") from error
    rows = np.flatnonzero(~np.isin(hashes(val.images), seen))
    if len(rows) < FEWEST_IMAGES:
        raise _IncomparableError(
            f"for its data were others: {len(rows):,} of the {len(val.labels):,} validation images are new to it, at "
            f"least {FEWEST_IMAGES} are needed"
        )
    return rows


def _settle(
    client: MlflowClient,
    name: str,
    candidates: Sequence[RegisteredCandidate],
    former: ModelVersion | None,
    champion: ModelVersion,
    sentence: str,
    promotion: str | None = None,
    challenger: ModelVersion | None = None,
) -> Decision:
    """Write the decision down, then act on it. promotion: the part that tells how the champion came to be it."""
    for version in [candidate.version for candidate in candidates]:
        # One that was champion before keeps telling how it came to be that.
        if PROMOTED not in version.tags or version.version == champion.version:
            set_tags(client, version, {GATE: sentence})
            describe(client, version, with_sentence(version.description, sentence))
    if former and former.version != champion.version:
        describe(client, former, with_sentence(former.description, sentence))
        set_tags(client, champion, {PROMOTION: promotion} if promotion else {})
    _move(client, name, former, champion, challenger)
    tags = champion.tags
    return Decision(str(champion.version), tags.get("model", name), tags.get("weights_sha256", ""), sentence)


def _move(
    client: MlflowClient,
    name: str,
    former: ModelVersion | None,
    champion: ModelVersion,
    challenger: ModelVersion | None,
) -> None:
    """The aliases, and the dates of what changed."""
    aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    number = str(champion.version)
    if aliases.get(CHAMPION) != number:
        moment = to_iso(now())
        if PROMOTED in champion.tags and DEMOTED in champion.tags:
            earlier = json.loads(champion.tags.get(EARLIER_PERIODS, "[]"))
            earlier.append([champion.tags[PROMOTED], champion.tags[DEMOTED], ROLLED_BACK in champion.tags])
            client.set_model_version_tag(name, number, EARLIER_PERIODS, json.dumps(earlier))
        client.set_model_version_tag(name, number, PROMOTED, moment)
        if ROLLED_BACK in champion.tags:
            client.delete_model_version_tag(name, number, ROLLED_BACK)
        if former:
            # Before the alias: without this tag nothing tells which version bore it, should the process end in between.
            client.set_model_version_tag(name, str(former.version), DEMOTED, moment)
        client.set_registered_model_alias(name, CHAMPION, number)
    if challenger and aliases.get(CHALLENGER) != str(challenger.version):
        client.set_registered_model_alias(name, CHALLENGER, str(challenger.version))
    elif not challenger and aliases.get(CHALLENGER) == number:
        client.delete_registered_model_alias(name, CHALLENGER)


def _out_of_reach(client: MlflowClient, version: ModelVersion) -> str | None:
    """Why a version cannot be loaded, as far as a look at its artifacts tells; UserError where none was possible."""
    if not (version.source or "").startswith("models:/"):
        return None  # somebody else's: loading it will show
    try:
        files = client.list_logged_model_artifacts(model_id(version), "artifacts")
    except Exception as error:
        if not is_gone(error):
            raise not_loaded(version, error) from error
        return f"its artifacts are gone ({_line(error)})"
    return None if files else "its artifacts are gone"


def is_gone(error: Exception) -> bool:
    """Whether a store's error says for certain that something is not there; others, of a busy server, may pass."""
    if isinstance(error, MlflowException):
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"
    return isinstance(error, FileNotFoundError)


def not_loaded(version: ModelVersion, error: Exception) -> UserError:
    """What to raise where an error does not tell whether a version works."""
    return UserError(
        f"{_label(version)} could not be loaded ({_line(error)}): fix the cause and rerun, or choose another champion "
        "with `make rollback`"
    )


def _previous(
    client: MlflowClient, versions: Sequence[ModelVersion], champion: ModelVersion | None
) -> ModelVersion | None:
    """The version that was champion last, of those that work, were not rolled back and are not the present one."""
    present = champion.tags.get(PACKAGE_SHA256) if champion else None
    earlier = [
        version
        for version in versions
        if DEMOTED in version.tags and ROLLED_BACK not in version.tags and version.tags.get(PACKAGE_SHA256) != present
    ]
    earlier.sort(key=lambda version: version.tags[DEMOTED], reverse=True)
    return next((version for version in earlier if _out_of_reach(client, version) is None), None)


def _named(versions: Sequence[ModelVersion], number: str) -> ModelVersion:
    for version in versions:
        if str(version.version) == number:
            return version
    raise UserError(f"there is no version {number}: choose one of {_numbers(versions)}")


def _numbers(versions: Sequence[ModelVersion]) -> str:
    return _listed(_label(version) for version in versions)


def _label(version: ModelVersion) -> str:
    return f"{version.tags.get('model', version.name)} (version {version.version})"


def _ranked(order: Sequence[RegisteredCandidate]) -> str:
    best, *others = order
    before = f", before {_listed(others)}" if others else ""
    return f"{best.model} is champion with {best.val_top1:.2%} top-1 on val{before}"


def _listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in things)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:150]
