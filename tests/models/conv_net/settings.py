"""Settings of the small convolutional network."""

from stages.common.settings import ClassifierSettings, Count, NonNegative, Positive


class Settings(ClassifierSettings):
    width: Count
    lr: Positive
    weight_decay: NonNegative
