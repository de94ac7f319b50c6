"""Settings of the pretrained Vision Transformer; params.yaml says what each one means."""

from typing import Annotated

from pydantic import Field

from stages.common.settings import Count, FinetuneSettings, Fraction, NonNegative, Positive, ProperFraction


class Settings(FinetuneSettings):
    backbone: str
    image_size: Count
    small_size: Count | None
    small_fraction: Fraction
    patch_dropout: ProperFraction
    lr: Positive
    layer_decay: Annotated[Positive, Field(le=1)]
    head_lr: Positive
    weight_decay: NonNegative
    warmup_fraction: Fraction
    ema: ProperFraction
    label_smoothing: Fraction
