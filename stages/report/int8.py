"""What int8 copies of the models gain and lose."""

from collections.abc import Callable, Mapping
from typing import Any

from stages.report.candidate import table

Judgement = Mapping[str, Any]  # what export.json says of a copy


def int8(found: Mapping[str, Judgement], images: int) -> list[str]:
    """The section, by model; none where no model has a copy. images: of validation."""
    if not found:
        return []

    def both(key: str, form: Callable[[float], str]) -> Callable[[Judgement], str]:
        return lambda one: f"{form(one['float32'][key])} → {form(one['int8'][key])}"

    columns: dict[str, Callable[[Judgement], str]] = {
        "method": lambda one: one["method"],
        "top-1": both("top1", "{:.2%}".format),
        "difference in points": lambda one: (
            f"{100 * one['difference']:+.2f} ({100 * one['low']:+.2f} to {100 * one['high']:+.2f})"
        ),
        "p": lambda one: f"{one['p_value']:.2g}",
        "NLL": both("nll", "{:.3f}".format),
        "ECE": both("ece", "{:.2%}".format),
        "latency p50, ms": both("latency_p50_ms", "{:.2f}".format),
        "images/s": both("throughput_images_per_second", "{:,.0f}".format),
        "MB": both("bytes", lambda size: f"{size / 1e6:.1f}"),
    }
    rows = [[model, *(cell(one) for cell in columns.values())] for model, one in found.items()]
    return [
        "### int8",
        table(["model", *columns], rows, words=2),
        "\n".join(f"- {model}: {one['reason']}." for model, one in found.items()),
        f"float32 → int8, on the same {images:,} validation images, before calibration; p: of McNemar's exact test. "
        "Latency for one image, throughput in batches of 64: the two took turns in one run. All else in this report is "
        "measured on the file that is served.",
    ]
