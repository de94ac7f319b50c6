"""Muon in batches of matrices, against timm's, which takes them one by one."""

import torch
from timm.optim import muon as timms
from torch import Tensor

from stages.models.torch_engine.muon import Muon

SHAPES = [(8, 8), (8, 8), (32, 8), (8, 32), (32, 8)]
STEPS = 4


def parameters(shapes: list[tuple[int, ...]]) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, *groups: list[torch.nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        for parameter in (parameter for group in groups for parameter in group):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad()


def muon(groups: list[dict[str, object]]) -> Muon:
    return Muon(groups, orthogonalize_in=torch.float32)


def assert_close(ours: list[torch.nn.Parameter], others: list[torch.nn.Parameter]) -> None:
    for one, other in zip(ours, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_matrices_move_as_by_timms_muon(monkeypatch) -> None:
    orthogonalize = timms.zeropower_via_newtonschulz

    def in_float32(*arguments: Tensor, **options: object) -> Tensor:
        return orthogonalize(*arguments, **{**options, "dtype": torch.float32})

    monkeypatch.setattr(timms, "zeropower_via_newtonschulz", in_float32)
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    train(muon([{"params": ours, "lr": 0.1, "weight_decay": 0.5, "muon": True}]), ours)
    train(
        timms.Muon(
            theirs,
            lr=0.1,
            weight_decay=0.5,
            momentum=0.95,
            nesterov=True,
            adjust_lr_fn="match_rms_adamw",
        ),
        theirs,
    )
    assert_close(ours, theirs)


def test_other_parameters_move_as_by_adamw_also_beside_matrices() -> None:
    ours, others, matrices = parameters([(8,), (4, 8)]), parameters([(8,), (4, 8)]), parameters([(8, 8)])
    groups = [{"params": ours, "lr": 0.1, "weight_decay": 0.5}, {"params": matrices, "lr": 0.1, "muon": True}]
    train(muon(groups), ours, matrices)
    shadow = parameters([(8, 8)])  # takes the same random gradients
    train(torch.optim.AdamW([{"params": others}, {"params": shadow}], lr=0.1, weight_decay=0.5), others, shadow)
    assert_close(ours, others)
    assert not torch.equal(matrices[0], parameters([(8, 8)])[0])
