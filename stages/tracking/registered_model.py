"""The registered model: its versions and aliases, who is champion and since when, the gate at work, the way back."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import load_model

from stages.common.errors import UserError
from stages.inference import onnx_model
from stages.tracking.gate import Gate, PairedComparison
from stages.tracking.package import FILES_SHA256, PACKAGE_SHA256, SEEN_IMAGES, files_sha256, image_hashes
from stages.tracking.runs import WEIGHTS_SHA256, from_iso, now, to_iso

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases
HISTORY = "champion_history"  # tag of the registered model: JSON list of promotions, oldest first
HISTORY_LENGTH = 50  # the newest: a tag of a registered model holds 5,000 characters
DECISION = "decision"  # tag of a version: the sentence that made it champion, challenger or neither
CHOSEN = "champion_chosen_at"  # tag of registered models of the release before champion_history
FEWEST_IMAGES = 500  # on which two models are compared where their splits differ


@dataclass(frozen=True)
class Promotion:
    """A version became champion; since: ISO 8601. The next promotion ends its time: by hand, it was rolled back."""

    version: str
    since: str
    by: Literal["gate", "hand"]


@dataclass(frozen=True)
class GateSplit:
    """The present gate split: images (N, H, W, 3) uint8, labels (N,) int64, and what tells it from others."""

    images: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    data_sha256: str


@dataclass(frozen=True)
class GateCandidate:
    """A version registered just now.

    val_top1: between 0 and 1; the best candidate is chosen by it. right: (N,) bool, on which images of gate top-1 is
    right; that one is compared with the champion by it.
    """

    version: ModelVersion
    val_top1: float
    right: np.ndarray

    @property
    def model(self) -> str:
        return self.version.tags["model"]

    def __str__(self) -> str:
        return f"{self.model} ({self.val_top1:.2%})"


@dataclass(frozen=True)
class Decision:
    """champion: its version; model: its name; reason: one sentence with the numbers it rests on."""

    champion: str
    model: str
    weights_sha256: str
    reason: str


class RegisteredModel:
    """A registered model of MLflow's default store, changed by one process at a time (Store.exclusive).

    The alias `champion` says who is champion, the tag `champion_history` since when, and who was before. Promotions
    write the alias last: what is interrupted before that did not happen, and the next registration decides again.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    @property
    def aliases(self) -> dict[str, str]:
        """Version numbers by alias."""
        aliases = self.client.get_registered_model(self.name).aliases
        return {alias: str(number) for alias, number in aliases.items()}  # some stores give numbers

    def versions(self) -> list[ModelVersion]:
        """All versions, newest first."""
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(versions, key=lambda version: -int(version.version))

    def champion(self) -> ModelVersion | None:
        """The version with that alias."""
        number = self.aliases.get(CHAMPION)
        return self.client.get_model_version(self.name, number) if number else None

    def history(self) -> list[Promotion]:
        """Every promotion, oldest first; the last one made the present champion."""
        tags, champion = self.client.get_registered_model(self.name).tags, self.champion()
        history = [Promotion(**entry) for entry in json.loads(tags.get(HISTORY, "[]"))]
        numbers = [promotion.version for promotion in history[-2:]]
        if champion is None or str(champion.version) in numbers[-1:]:
            return history
        if str(champion.version) in numbers:
            return history[:-1]  # the last one was interrupted
        # Made champion by an earlier release, or past this class.
        chosen = None if history else tags.get(CHOSEN)
        since = chosen or to_iso(now() if history else champion.creation_timestamp)
        return [*history, Promotion(str(champion.version), since, "hand" if chosen else "gate")]

    def problem(self, version: ModelVersion, folder: Path) -> str | None:
        """Fetch a version's package into `folder`, empty; returns why it cannot be used, None if it can.

        UserError where the store does not tell now, because it is busy, say.
        """
        try:
            download_artifacts(f"models:/{self.name}/{version.version}", dst_path=str(folder))
            if not any(folder.iterdir()):  # as of a store on this machine whose folder was moved
                return "its artifacts are gone"
            if version.tags.get(FILES_SHA256) not in (None, files_sha256(folder)):
                return "its artifacts were changed"
            metadata = Model.load(folder).metadata or {}
        except Exception as error:
            is_missing = isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"
            if is_missing or isinstance(error, FileNotFoundError):  # others may pass
                return f"its artifacts are gone ({_line(error)})"
            raise _not_loaded(version, error) from error
        # None of its code is run: the app would refuse it, too.
        is_known = metadata.get("format") == onnx_model.FORMAT
        return None if is_known else "it was registered by another release of this project"

    def decide(self, candidates: Sequence[GateCandidate], split: GateSplit, gate: Gate) -> Decision:
        """Compare the best candidate with the champion; sets champion, challenger, their history and decisions.

        What cannot be compared does not replace a champion that works; one that is gone or damaged is replaced. What a
        person chose stands until something newer passes. UserError where it could not be loaded: nothing is decided.
        """
        former = self.champion()
        # Registered again under another number, where the old version is out of reach: the same model all the same.
        package = former.tags.get(PACKAGE_SHA256) if former else None
        same = next((c for c in candidates if c.version.tags[PACKAGE_SHA256] == package), None)
        champion = same.version if same else former
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            problem = self.problem(champion, folder) if champion and not same else None
            chosen, held = self._held_back(candidates, champion) if champion and not problem else ("", set())
            # The test split has no say. The sort is stable: of equals the one named first is first.
            order = sorted((c for c in candidates if c.model not in held), key=lambda c: -c.val_top1)
            if champion and not order:
                reason = f"made so by hand on {chosen}; registered by then: {_listed(candidates)}"
                return self._settle(candidates, champion, f"{_label(champion)} stays champion, {reason}")

            best, *others = order
            sentence = f"{best.model} is champion with {best.val_top1:.2%} top-1 on val"
            sentence += f", before {_listed(others)}" if others else ""
            sentence += f", held back since a person chose: {_listed(sorted(held))}" if held else ""
            if champion is None or best is same:
                decision = self._settle(candidates, best.version, sentence)
                is_old = former and former.version == best.version.version
                return replace(decision, reason=best.version.tags.get(DECISION, sentence)) if is_old else decision
            takes_over, reason = True, f"it does not work, {problem}"
            if not problem:
                takes_over, reason = self._beats(best, champion, folder, same.right if same else None, split, gate)
        if takes_over:
            sentence += f"; it took over from {_label(champion)}: {reason}"
            return self._settle(candidates, best.version, sentence, None if problem else champion)
        sentence = f"{_label(champion)} stays champion; {best.model} (version {best.version.version}), the best of "
        return self._settle(candidates, champion, f"{sentence}{_listed(order)}, is challenger: {reason}", best.version)

    def roll_back(self, to: str | None = None) -> str:
        """Make the champion before this one champion again, or the version `to`; says so in one sentence.

        Versions registered until now do not take over any more by being registered again. UserError where there is no
        such model or version, or none that works.
        """
        versions = {str(version.version): version for version in self.versions()}
        if not versions:
            names = _listed(model.name for model in self.client.search_registered_models()) or "none"
            raise UserError(f"no version of a registered model {self.name}: the tracking store has {names}")
        former, choices = (
            self.champion(),
            f"choose with --to, or TO= for make, one of {_listed(map(_label, versions.values()))}",
        )
        if to and to not in versions:
            raise UserError(f"there is no version {to}: {choices}")
        if former and to == str(former.version):
            raise UserError(f"{_label(former)} is champion already: {choices}")
        for number in [to] if to else [number for number in self._earlier() if number in versions]:
            with tempfile.TemporaryDirectory() as folder:
                problem = self.problem(versions[number], Path(folder))
            if problem is None:
                break
            if to:
                raise UserError(f"{_label(versions[to])} cannot be champion, {problem}: {choices}")
        else:
            raise UserError(f"no version of {self.name} was champion before: {choices}")
        target = versions[number]
        instead = f" in place of {_label(former)}" if former else ""
        # Not before any version that the store, by its own clock, has now.
        since = to_iso(max([now(), *(version.creation_timestamp for version in versions.values())]))
        sentence = f"{_label(target)} was made champion by hand on {since}{instead}"
        self.client.set_model_version_tag(self.name, number, DECISION, sentence)
        self._promote(Promotion(number, since, "hand"))
        return f"{_label(target)} is champion{instead}"

    def _earlier(self) -> list[str]:
        """The versions that were champion before the present one and were not rolled back, the last one first."""
        numbers: list[str] = []
        for promotion in self.history():
            while promotion.by == "hand" and promotion.version in numbers:
                numbers.pop()  # back to it: what came after was rolled back
            numbers.append(promotion.version)
        return numbers[-2::-1]

    def _held_back(self, candidates: Sequence[GateCandidate], champion: ModelVersion) -> tuple[str, set[str]]:
        """When a person chose last, and the models that they could have chosen, and did not."""
        choices = [promotion.since for promotion in self.history() if promotion.by == "hand"]
        if not choices:
            return "", set()
        # The champion's own weights may come back packaged anew, but not in a package that was turned down.
        seen = [version for version in self.versions() if version.creation_timestamp <= from_iso(choices[-1])]
        turned_down = set().union(*map(_identity, seen)) - _identity(champion)
        return choices[-1], {c.model for c in candidates if turned_down & _identity(c.version)}

    def _beats(
        self,
        best: GateCandidate,
        champion: ModelVersion,
        folder: Path,
        right: np.ndarray | None,
        split: GateSplit,
        gate: Gate,
    ) -> tuple[bool, str]:
        """Whether the candidate takes over from a champion that works, and why.

        right: of the champion, where it is known because it was registered now, too. Else its package in `folder` is
        run, as in the app, on the images that it was neither trained on nor selected by.
        """
        rows = np.arange(len(split.labels))
        if right is None:
            try:
                model = load_model(str(folder), suppress_warnings=True)
                metadata = model.metadata.metadata or {}
                is_same_data = metadata["data_sha256"] == split.data_sha256
                if not is_same_data:
                    # Earlier releases kept the training images alone: of those that selected it nothing is known.
                    [file] = [*folder.glob(SEEN_IMAGES), *folder.glob("training_*.npy")]
                    seen = np.load(file, allow_pickle=False)
                    rows = np.flatnonzero(~np.isin(image_hashes(split.images), seen))
                right = np.asarray(model.predict(split.images[rows])).argmax(axis=1) == split.labels[rows]
            except Exception as error:
                # It is intact, and whoever registered it had run it: this machine lacks memory, a library, a driver.
                raise _not_loaded(champion, error) from error
            reason = ""
            if metadata["class_names"] != split.class_names:
                reason = "the champion has other classes"
            elif not is_same_data and len(rows) < FEWEST_IMAGES:
                new = f"{len(rows):,} of the {len(split.labels):,} gate images are new to it"
                reason = f"the champion was trained on other data: {new}, at least {FEWEST_IMAGES} are needed"
            if reason:
                return gate.rule == "always", f"they could not be compared, {reason} ({gate})"
        comparison = PairedComparison.of(best.right[rows], right)
        if best.version.tags[WEIGHTS_SHA256] == champion.tags.get(WEIGHTS_SHA256) and comparison.difference >= 0:
            return True, f"the same weights packaged anew, {comparison}"
        return gate.passes(comparison), f"{comparison} ({gate})"

    def _settle(
        self,
        candidates: Sequence[GateCandidate],
        champion: ModelVersion,
        sentence: str,
        challenger: ModelVersion | None = None,
    ) -> Decision:
        """Write the decision down, then act on it."""
        history, number = self.history(), str(champion.version)
        is_new = not history or history[-1].version != number
        # Who is or was champion before keeps telling how it came to be that.
        keep = {p.version for p in history} - ({number} if is_new or DECISION not in champion.tags else set())
        for candidate in candidates:
            if str(candidate.version.version) not in keep:
                self.client.set_model_version_tag(self.name, str(candidate.version.version), DECISION, sentence)
        self._promote(Promotion(number, to_iso(now()), "gate") if is_new else history[-1], challenger)
        tags = champion.tags
        return Decision(number, tags.get("model", self.name), tags.get(WEIGHTS_SHA256, ""), sentence)

    def _promote(self, promotion: Promotion, challenger: ModelVersion | None = None) -> None:
        """Write history and aliases; the champion's alias last."""
        if challenger:
            self.client.set_registered_model_alias(self.name, CHALLENGER, str(challenger.version))
        elif self.aliases.get(CHALLENGER) == promotion.version:
            self.client.delete_registered_model_alias(self.name, CHALLENGER)
        history = self.history()
        history += [promotion] if history[-1:] != [promotion] else []
        text = json.dumps([asdict(each) for each in history[-HISTORY_LENGTH:]])
        self.client.set_registered_model_tag(self.name, HISTORY, text)
        self.client.set_registered_model_alias(self.name, CHAMPION, promotion.version)


def model_id(version: ModelVersion) -> str:
    """Id of the logged model that a version holds."""
    return (version.source or "").removeprefix("models:/")  # not every store fills version.model_id


def _identity(version: ModelVersion) -> set[str]:
    return {version.tags[key] for key in (PACKAGE_SHA256, WEIGHTS_SHA256) if key in version.tags}


def _not_loaded(version: ModelVersion, error: Exception) -> UserError:
    return UserError(
        f"{_label(version)} could not be loaded ({_line(error)}): fix the cause and rerun, or choose another champion "
        "with `make rollback`"
    )


def _listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in things)


def _label(version: ModelVersion) -> str:
    return f"{version.tags.get('model', version.name)} (version {version.version})"


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:150]
