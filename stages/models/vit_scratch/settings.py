"""Settings of the Vision Transformer from scratch; params.yaml says what each one means."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.settings import ClassifierSettings, Count, Fraction, NonNegative, Number, Positive, ProperFraction


class Settings(ClassifierSettings):
    patch_size: Count
    embed_dim: Count
    depth: Count
    num_heads: Count
    mlp_ratio: Positive
    dropout: ProperFraction
    drop_path: ProperFraction
    pool: Literal["cls", "mean"]
    whitening: Positive | None
    muon_lr: Positive
    adamw_lr: Positive
    weight_decay: NonNegative
    warmup_fraction: Fraction
    ema: ProperFraction
    label_smoothing: Fraction
    rand_augment: Annotated[Number, Field(ge=0, le=10, multiple_of=1)]  # timm takes whole ones
    mixup: NonNegative
    cutmix: NonNegative

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim = {self.embed_dim} must be a multiple of num_heads = {self.num_heads}")
        return self
