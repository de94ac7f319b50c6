"""What all figures share: the style file, a colour for each model, the way to a file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Okabe and Ito's palette (2008, https://jfly.uni-koeln.de/color/): told apart by colour-blind readers too.
_COLOURS = {"vit_scratch": "#D55E00", "vit_transfer": "#0072B2", "mobilenet_transfer": "#009E73"}
_FURTHER = ("#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#999999"


def colours(models: Sequence[str]) -> dict[str, str]:
    """The colour of each model: always the same for those of the house, in order for others."""
    others = [model for model in models if model not in _COLOURS]
    return {model: _COLOURS.get(model) or _FURTHER[others.index(model) % len(_FURTHER)] for model in models}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house's style."""
    with plt.style.context(Path(__file__).parent / "house.mplstyle"):
        yield


def save(figure: Figure, file: Path) -> None:
    """Write a PNG, the same bytes for the same figure, and close it."""
    unfinished = file.with_suffix(".unfinished")
    # By default the file names the version of matplotlib.
    figure.savefig(unfinished, format="png", metadata={"Software": None})
    plt.close(figure)
    unfinished.replace(file)
