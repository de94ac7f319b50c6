"""timm's Muon, at home on processors without bfloat16."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.optim import muon


class Muon(muon.Muon):
    """Muon for matrices, AdamW for groups with `use_fallback` (see timm.optim.Muon).

    timm orthogonalises in bfloat16 whatever the hardware. Where that is only emulated (most CPUs) a training step of
    the scratch ViT takes ten times as long; there `orthogonalize_in` should be float32.
    """

    def __init__(self, params: Any, *, orthogonalize_in: torch.dtype, **options: Any) -> None:
        super().__init__(params, **options)
        self.orthogonalize_in = orthogonalize_in

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with _orthogonalize_in(self.orthogonalize_in):
            return super().step(closure)


@contextmanager
def _orthogonalize_in(dtype: torch.dtype) -> Iterator[None]:
    # timm's function takes a dtype, but its optimizer does not pass one on.
    original = muon.zeropower_via_newtonschulz
    muon.zeropower_via_newtonschulz = partial(original, dtype=dtype)
    try:
        yield
    finally:
        muon.zeropower_via_newtonschulz = original
