"""The description of a version, as MLflow's pages show it: a card that says what it is, then the gate's sentence."""

from collections.abc import Mapping
from typing import Any

GATE = "\n\n**Gate:**"  # stands between the two

_CARD = """\
Image classifier `{model}`, trained on {source}: {classes} classes in {superclasses} superclasses, one ONNX file in \
{precision} (sha256 {onnx_sha256:.12}), run on the CPU by OpenVINO.

- Input: images (N, H, W, 3) uint8, RGB, of any size. Those that are not square are {square}; all are brought to \
{image_size} px.
- Output: calibrated probabilities (N, {classes}) float32; with `params={{"top_k": k}}` a table: image, rank, class, \
superclass, probability, 90 % prediction set, out-of-distribution flag.
- Test top-1: {top1:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {n_test:,}).

```python
model = mlflow.pyfunc.load_model("models:/{name}/{number}")
model.predict(images, params={{"top_k": 5}})
```"""
_SQUARE = {"crop": "cropped to their centre", "pad": "padded with white"}


def card(name: str, number: str, metadata: Mapping[str, Any], n_test: int) -> str:
    """What version `number` of the registered model `name` is; n_test: the test images its metrics were measured on."""
    test = metadata["metrics"]["test"]
    return _CARD.format(
        **{key: metadata[key] for key in ("model", "source", "precision", "onnx_sha256", "image_size")},
        classes=len(metadata["class_names"]),
        superclasses=len(metadata["superclass_names"]),
        square=_SQUARE[metadata["square"]],
        top1=test["top1"],
        low=test["top1_low"],
        high=test["top1_high"],
        n_test=n_test,
        name=name,
        number=number,
    )


def with_card(description: str | None, text: str) -> str:
    """The description with this card, its gate's sentence as it was."""
    _, _, sentence = (description or "").partition(GATE)
    return text + GATE + sentence


def with_sentence(description: str | None, sentence: str) -> str:
    """The description with this sentence of the gate, its card as it was; versions of earlier releases have none."""
    text, gate, _ = (description or "").partition(GATE)
    return f"{text}{gate} {sentence}" if gate else sentence
