"""Muon for the matrices, AdamW for the rest, in one optimizer."""

import math
from collections import defaultdict
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor

# Of the quintic polynomial of each iteration, fitted so that five of them bring all singular values near 1
# (https://leloykun.github.io/ponder/muon-opt-coeffs); timm's choice too.
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) for groups with `muon: True`, AdamW for
    the others.

    Muon's steps are as long as AdamW's in root mean square (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so
    both take learning rates of one size. Matrices of one shape are orthogonalised together: on a CPU in less than
    three quarters of the time that timm.optim.Muon takes for one after the other.

    params: groups with lr and weight_decay; those with `muon: True` hold matrices only.
    momentum: of Muon, Nesterov's.
    orthogonalize_in: bfloat16 suffices where the hardware multiplies it; where it is emulated it takes ten times as
        long.
    """

    def __init__(self, params: Any, *, orthogonalize_in: torch.dtype, momentum: float = 0.95) -> None:
        groups = [{"muon": False, **group} for group in params]
        super().__init__(groups, fused=True)
        self.orthogonalize_in = orthogonalize_in
        self.momentum = momentum

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if group["muon"]:
                self._step(group)
        # AdamW passes over parameters without a gradient.
        super().step()

    def _step(self, group: dict[str, Any]) -> None:
        directions: dict[torch.Size, dict[Tensor, Tensor]] = defaultdict(dict)
        for matrix in group["params"]:
            if matrix.grad is not None:
                state = self.state[matrix]
                if not state:
                    # Under AdamW's names: it looks for them when it reads a checkpoint.
                    state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(matrix)}
                momentum = state["exp_avg"].lerp_(matrix.grad, 1 - self.momentum)
                directions[matrix.shape][matrix] = matrix.grad.lerp(momentum, self.momentum)
                matrix.grad = None
        for (rows, columns), of_one_shape in directions.items():
            orthogonal = zeropower_via_newtonschulz(
                torch.stack(list(of_one_shape.values())),
                len(COEFFICIENTS),
                COEFFICIENTS,
                dtype=self.orthogonalize_in,
            )
            length = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
            for matrix, direction in zip(of_one_shape, orthogonal, strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=length)
