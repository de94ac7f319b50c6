"""The alias `champion` of a registered model: who holds it, who takes over, and the way back.

What cannot be compared with the champion does not replace it; a champion that is gone or broken is replaced. Where the
store or this machine fails, nothing is decided. What a person chose stands until something newer is registered.
"""

import errno
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model

from stages.errors import UserError

from .gate import FEWEST_PICTURES, Candidate, Gate, Match, hashes, ranking
from .packaged_model import MODEL_ARTIFACT
from .runs import now, to_iso
from .store import Store

CHAMPION = "champion"
CHALLENGER = "challenger"
TRAINING_PICTURES = "training_pictures.npy"  # beside the packaged model: (N,) uint64, see gate.hashes

# Tags of a version. Aliases keep no history: these do.
PROMOTED, DEMOTED, ROLLED_BACK = "promoted_at", "demoted_at", "rolled_back_at"  # times, ISO 8601
EARLIER_REIGNS = "earlier_reigns"  # of a version that is champion again: JSON, [promoted, demoted, rolled back] of each
GATE = "gate"  # the sentence that made it champion, challenger or neither
PROMOTION = "promotion"  # how it came to be champion
MATCH = "gate_match"  # its comparison with a champion, as JSON
PACKAGE_SHA256 = "package_sha256"  # weights, code, data and what is said of them
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
class Newcomer:
    """A model that was registered just now. right: (N,) bool, which pictures of the validation split it names right."""

    candidate: Candidate
    version: ModelVersion
    right: np.ndarray

    @property
    def weights_sha256(self) -> str:
        return self.version.tags["weights_sha256"]

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
    """The champion does not load or does not predict, and would not another time either."""


def decide(client: MlflowClient, name: str, newcomers: Sequence[Newcomer], val: Validation, gate: Gate) -> Decision:
    """Let the best of the newcomers meet the present champion; sets champion, challenger and the tags of both.

    The store must be MLflow's default one. UserError where the champion could not be asked; it stays what it is.
    """
    by_model = {newcomer.candidate.model: newcomer for newcomer in newcomers}
    holder = _holder(client, name)
    # Registered again under another number, where the old version is out of reach: the same model all the same.
    same = [n for n in newcomers if holder and n.version.tags[PACKAGE_SHA256] == holder.tags.get(PACKAGE_SHA256)]
    present = same[0].version if same else holder
    problem = _out_of_reach(client, present) if present else None
    held = _held_back(client, name, newcomers, present) if present and not problem else set()
    order = [by_model[c.model] for c in ranking([n.candidate for n in newcomers]) if c.model not in held]
    if present and not order:
        moment = client.get_registered_model(name).tags[CHOSEN]
        others = _listed(newcomer.candidate for newcomer in newcomers)
        reason = f"{_label(present)} stays champion, made so by hand on {moment}; registered by then: {others}"
        return _settle(client, name, newcomers, holder, present, reason)

    best = order[0]
    standing = _standing(order) + (f", held back since a person chose: {_listed(sorted(held))}" if held else "")
    if present is None or best.version.version == present.version:
        promotion = holder.tags.get(PROMOTION) if holder else None
        reason = f"{standing}; {promotion}" if promotion else standing
        return _settle(client, name, newcomers, holder, best.version, reason, promotion)

    try:
        if problem:
            raise _BrokenError(problem)
        match = _match(client, best, present, same[0].right if same else None, val)
        if best.weights_sha256 == present.tags.get("weights_sha256") and match.difference >= 0:
            takes_over, clause = True, f"the same weights packaged anew, {match}"
        else:
            takes_over, clause = gate.lets_through(match), f"{match} ({gate})"
    except _IncomparableError as incomparable:
        takes_over, clause = gate.rule == "always", f"they could not be compared, {incomparable} ({gate})"
    except _BrokenError as broken:
        promotion = f"it took over from {_label(present)}, which does not work: {broken}"
        return _settle(client, name, newcomers, holder, best.version, f"{standing}; {promotion}", promotion)
    if takes_over:
        promotion = f"it took over from {_label(present)}: {clause}"
        reason = f"{standing}; {promotion}"
        return _settle(client, name, newcomers, holder, best.version, reason, promotion, challenger=present)
    reason = (
        f"{_label(present)} stays champion; {best.candidate.model} (version {best.number}), the best of "
        f"{_listed(n.candidate for n in order)}, is challenger: {clause}"
    )
    return _settle(client, name, newcomers, holder, present, reason, challenger=best.version)


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
        holder = _holder(client, name)
        target = _named(versions, to) if to else _former(client, versions, holder)
        if target is None:
            raise UserError(f"no version of {name} was champion before: choose with --to one of {_numbers(versions)}")
        if holder and target.version == holder.version:
            raise UserError(f"{_label(target)} is champion already: choose another one of {_numbers(versions)}")
        if problem := _out_of_reach(client, target):
            raise UserError(
                f"{_label(target)} cannot be champion, {problem}: choose another one of {_numbers(versions)}"
            )
        moment = to_iso(now())
        instead = f" in place of {_label(holder)}" if holder else ""
        clause = f"made champion by hand on {moment}{instead}"
        for key, value in ((CHOSEN, moment), (CHOSEN_AMONG, str(max(int(v.version) for v in versions)))):
            client.set_registered_model_tag(name, key, value)
        if holder:
            client.set_model_version_tag(name, str(holder.version), ROLLED_BACK, moment)
        reason = f"{_label(target)} was {clause}"
        set_tags(client, target, {GATE: reason, PROMOTION: f"it was {clause}"})
        for version in (target, holder) if holder else (target,):
            _describe(client, version, reason)
        _move(client, name, holder, target, challenger=None)
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


def model_id(version: ModelVersion) -> str:
    """Id of the logged model that a version holds."""
    # Not every store fills version.model_id.
    return (version.source or "").removeprefix("models:/")


def _holder(client: MlflowClient, name: str) -> ModelVersion | None:
    number = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, str(number)) if number is not None else None


def _held_back(client: MlflowClient, name: str, newcomers: Sequence[Newcomer], present: ModelVersion) -> set[str]:
    """The models that a person could have chosen, and did not."""
    last = client.get_registered_model(name).tags.get(CHOSEN_AMONG)
    if last is None:
        return set()
    seen = [version.tags for version in versions_of(client, name) if int(version.version) <= int(last)]
    # The champion's own weights may come back packaged anew, but not in a package that was turned down.
    packages = {tags.get(PACKAGE_SHA256) for tags in seen} - {present.tags.get(PACKAGE_SHA256)}
    weights = {tags.get("weights_sha256") for tags in seen} - {present.tags.get("weights_sha256")}
    return {
        newcomer.candidate.model
        for newcomer in newcomers
        if newcomer.version.tags[PACKAGE_SHA256] in packages or newcomer.weights_sha256 in weights
    }


def _match(
    client: MlflowClient, best: Newcomer, present: ModelVersion, right: np.ndarray | None, val: Validation
) -> Match:
    """Both on the same pictures. right: of the champion, where it is known because it was registered now, too."""
    if right is not None:
        return Match.of(best.right, right)
    sha256 = present.tags.get(PACKAGE_SHA256)
    known = json.loads(best.version.tags.get(MATCH, "{}"))
    if sha256 and known.pop(PACKAGE_SHA256, None) == sha256:
        return Match(**known)  # from an earlier registration: no need to load the champion
    right, rows = _answers(present, val)
    match = Match.of(best.right[rows], right)
    set_tags(client, best.version, {MATCH: json.dumps({PACKAGE_SHA256: sha256, **asdict(match)})})
    return match


def _answers(present: ModelVersion, val: Validation) -> tuple[np.ndarray, np.ndarray]:
    """Which of the validation pictures that it was not trained on the champion names right (n,) bool, and their rows.

    The version itself is asked, as it answers in the app.
    """
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = Path(download_artifacts(f"models:/{present.name}/{present.version}", dst_path=temporary))
        except Exception as error:
            raise _BrokenError(_line(error)) if is_gone(error) else unanswered(present, error) from error
        try:
            model = load_model(str(folder), suppress_warnings=True)
            about = model.metadata.metadata or {}
        except Exception as error:  # packaged code, and whatever MLflow raises
            raise unanswered(present, error) if _is_of_machine(error) else _BrokenError(_line(error)) from error
        if about.get("class_names") != val.class_names:
            raise _IncomparableError("for it knows other classes")
        rows = np.arange(len(val.labels))
        if about.get("data_sha256") != val.data_sha256:
            rows = _unseen(folder / TRAINING_PICTURES, val)
        try:
            answers = np.asarray(model.predict(val.images[rows])).argmax(axis=1)
        except Exception as error:
            raise unanswered(present, error) if _is_of_machine(error) else _BrokenError(_line(error)) from error
    return answers == val.labels[rows], rows


def _unseen(file: Path, val: Validation) -> np.ndarray:
    """Rows of the validation pictures that are not among those of the file."""
    try:
        seen = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _IncomparableError("for its data were others, and it does not say which") from error
    rows = np.flatnonzero(~np.isin(hashes(val.images), seen))
    if len(rows) < FEWEST_PICTURES:
        raise _IncomparableError(
            f"for its data were others: {len(rows):,} of the {len(val.labels):,} val pictures are new to it, at least "
            f"{FEWEST_PICTURES} are needed"
        )
    return rows


def _settle(
    client: MlflowClient,
    name: str,
    newcomers: Sequence[Newcomer],
    holder: ModelVersion | None,
    champion: ModelVersion,
    reason: str,
    promotion: str | None = None,
    challenger: ModelVersion | None = None,
) -> Decision:
    """Write the decision down, then act on it. promotion: the part that tells how the champion came to be it."""
    for newcomer in newcomers:
        # One that was champion before keeps telling how it came to be that.
        if PROMOTED not in newcomer.version.tags or newcomer.version.version == champion.version:
            set_tags(client, newcomer.version, {GATE: reason})
            _describe(client, newcomer.version, reason)
    if holder and holder.version != champion.version:
        _describe(client, holder, reason)
        set_tags(client, champion, {PROMOTION: promotion} if promotion else {})
    _move(client, name, holder, champion, challenger)
    tags = champion.tags
    return Decision(str(champion.version), tags.get("model", name), tags.get("weights_sha256", ""), reason)


def _move(
    client: MlflowClient,
    name: str,
    holder: ModelVersion | None,
    champion: ModelVersion,
    challenger: ModelVersion | None,
) -> None:
    """The aliases, and the dates of what changed."""
    aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    number = str(champion.version)
    if aliases.get(CHAMPION) != number:
        moment = to_iso(now())
        if PROMOTED in champion.tags and DEMOTED in champion.tags:
            earlier = json.loads(champion.tags.get(EARLIER_REIGNS, "[]"))
            earlier.append([champion.tags[PROMOTED], champion.tags[DEMOTED], ROLLED_BACK in champion.tags])
            client.set_model_version_tag(name, number, EARLIER_REIGNS, json.dumps(earlier))
        client.set_model_version_tag(name, number, PROMOTED, moment)
        if ROLLED_BACK in champion.tags:
            client.delete_model_version_tag(name, number, ROLLED_BACK)
        if holder:
            # Before the alias: without this tag nothing tells who held it, should the process end in between.
            client.set_model_version_tag(name, str(holder.version), DEMOTED, moment)
        client.set_registered_model_alias(name, CHAMPION, number)
    if challenger and aliases.get(CHALLENGER) != str(challenger.version):
        client.set_registered_model_alias(name, CHALLENGER, str(challenger.version))
    elif not challenger and aliases.get(CHALLENGER) == number:
        client.delete_registered_model_alias(name, CHALLENGER)


def _describe(client: MlflowClient, version: ModelVersion, reason: str) -> None:
    if version.description != reason:
        client.update_model_version(version.name, str(version.version), reason)


def _out_of_reach(client: MlflowClient, version: ModelVersion) -> str | None:
    """Why a version cannot be loaded, as far as a look at its artifacts tells; UserError where none was possible."""
    if not (version.source or "").startswith("models:/"):
        return None  # somebody else's: loading it will show
    try:
        files = client.list_logged_model_artifacts(model_id(version), f"artifacts/{MODEL_ARTIFACT}")
    except Exception as error:
        if not is_gone(error):
            raise unanswered(version, error) from error
        return f"its artifacts are gone ({_line(error)})"
    return None if files else "its artifacts are gone"


def is_gone(error: Exception) -> bool:
    """Whether a store's error says for certain that something is not there; others, of a busy server, may pass."""
    if isinstance(error, MlflowException):
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"
    return isinstance(error, FileNotFoundError)


def unanswered(version: ModelVersion, error: Exception) -> UserError:
    """What to raise where an error does not tell whether a version works."""
    return UserError(
        f"{_label(version)} could not be asked ({_line(error)}): mend this and run the same command again, or choose "
        "another champion with `make rollback`"
    )


def _is_of_machine(error: Exception) -> bool:
    """Whether a complete model may have failed for what this machine lacks: memory, disk, a library, a driver."""
    for cause in _chain(error):
        if isinstance(cause, (MemoryError, ImportError, ConnectionError, TimeoutError)):
            return True
        # Without a number it is a library's way to say that it cannot read what a file holds.
        if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT):
            return True
        # torch and TensorFlow have types of their own, and neither need be installed.
        said = f"{type(cause).__name__}: {cause}".lower()
        if any(sign in said for sign in ("out of memory", "allocate memory", "resourceexhausted", "cuda error")):
            return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _former(client: MlflowClient, versions: Sequence[ModelVersion], holder: ModelVersion | None) -> ModelVersion | None:
    """The version that was champion last, of those that work, were not rolled back and are not the present one."""
    present = holder.tags.get(PACKAGE_SHA256) if holder else None
    former = [
        version
        for version in versions
        if DEMOTED in version.tags and ROLLED_BACK not in version.tags and version.tags.get(PACKAGE_SHA256) != present
    ]
    former.sort(key=lambda version: version.tags[DEMOTED], reverse=True)
    return next((version for version in former if _out_of_reach(client, version) is None), None)


def _named(versions: Sequence[ModelVersion], number: str) -> ModelVersion:
    for version in versions:
        if str(version.version) == number:
            return version
    raise UserError(f"there is no version {number}: choose one of {_numbers(versions)}")


def _numbers(versions: Sequence[ModelVersion]) -> str:
    return _listed(_label(version) for version in versions)


def _label(version: ModelVersion) -> str:
    return f"{version.tags.get('model', version.name)} (version {version.version})"


def _standing(order: Sequence[Newcomer]) -> str:
    best, *others = [newcomer.candidate for newcomer in order]
    before = f", before {_listed(others)}" if others else ""
    return f"{best.model} is champion with {best.val_top1:.2%} top-1 on val{before}"


def _listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in things)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:150]
