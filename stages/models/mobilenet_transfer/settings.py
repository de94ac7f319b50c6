"""Settings of the pretrained MobileNetV3; params.yaml says what each one means."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.settings import FinetuneSettings, Fraction, NonNegative, Positive, ProperFraction


class Settings(FinetuneSettings):
    variant: Literal["small", "large"]
    image_size: Annotated[int, Field(ge=32)]
    small_size: Annotated[int, Field(ge=32)] | None
    small_fraction: Fraction
    head_fraction: Fraction
    head_lr: Positive
    lr: Positive
    weight_decay: NonNegative
    dropout: ProperFraction
    label_smoothing: Fraction
