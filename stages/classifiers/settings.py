"""What every classifier's settings have in common. Light on purpose: params.yaml is checked before torch loads."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# YAML 1.1 readers take 1e-3 (without a dot) for text: numbers are accepted in that guise too.
Fraction = Annotated[float, Field(ge=0, le=1, strict=False)]
NonNegative = Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, strict=False, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of params.yaml: unknown keys, wrong types and impossible values are errors, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Compute(Section):
    """Where and how to compute; not what: results differ between settings only by rounding."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Count | None = None


class ClassifierSettings(Section):
    """The settings that the pipeline itself reads; each classifier's own Settings add to them."""

    classifier: str
    epochs: Count | None
    batch_size: Count
    crop_padding: Annotated[int, Field(ge=0, le=16)]
    flip: bool
