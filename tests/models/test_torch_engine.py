"""The torch engine: learning rate, devices, precision, processes."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.common.errors import UserError
from stages.common.settings import Compute, process_rank, started_processes
from stages.models.torch_engine.preprocessing import Preprocessing
from stages.training import fit
from stages.training.torch_engine.device import accelerator, precision
from stages.training.torch_engine.loop import learning_rate_factor
from tests.models.small import CPU, classifier, tinted


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "is_first", "started"),
    [
        ("", True, 1),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=8", True, 8),
        ("RANK=8 LOCAL_RANK=0 WORLD_SIZE=16", False, 16),  # torchrun on the second machine
        ("SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=8", False, 8),
        ("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=8", True, 1),
        # Lightning's own launcher in a shell that SLURM gave: the variables of the shell say 0 to all.
        ("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 NODE_RANK=0 LOCAL_RANK=1 WORLD_SIZE=2", False, 2),
        ("NODE_RANK=1", False, 1),
    ],
)
def test_one_process_has_rank_0(monkeypatch, environment, is_first, started):
    for variable in environment.split():
        monkeypatch.setenv(*variable.split("="))
    assert (process_rank() == 0, started_processes()) == (is_first, started)


@pytest.mark.parametrize(
    ("changes", "tasks", "message"),
    [
        ({}, "2", r"2 processes were started, but compute.devices = 1 .* make 1"),
        ({"num_nodes": 2}, "1", r"num_nodes = 2: start the training on every machine"),
        ({"strategy": "no-such-strategy"}, "1", r"compute\.devices = 1, .* strategy = 'no-such-strategy' do not work"),
        ({"devices": 2, "accelerator": "mps"}, "1", r"compute\.accelerator = 'mps' is not on this machine: it has"),
    ],
)
def test_devices_that_cannot_be_used_are_refused_in_one_line(monkeypatch, changes, tasks, message):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    with pytest.raises(UserError, match=message) as caught:
        fit(classifier("vit_scratch"), tinted(8), tinted(8), epochs=1, compute=CPU.model_copy(update=changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [8, 9])
def test_a_last_batch_of_one_image_may_be_mixed(reports, count):
    built = classifier("vit_scratch", mixup=0.5, batch_size=4)
    before = built.network.state_dict()["1.blocks.0.mlp.0.weight"].clone()
    fit(built, tinted(count), tinted(8), epochs=2, compute=CPU, reporter=reports.reporter)
    assert [metrics["val_loss"] < 2 for _, metrics in reports.epochs] == [True, True]
    assert not torch.equal(built.network.state_dict()["1.blocks.0.mlp.0.weight"], before)


def test_an_average_of_the_weights_is_validated_and_kept(reports):
    built, train, val, seen = classifier("vit_scratch", ema=0.75), tinted(160), tinted(50, seed=1), []

    def take() -> None:
        seen.append([parameter.detach().clone() for parameter in built.body.parameters()])

    fit(built, train, val, epochs=2, compute=CPU, reporter=replace(reports.reporter, after_step=take))
    average = seen[0]
    for weights in seen[1:]:
        average = [0.75 * so_far + 0.25 * new for so_far, new in zip(average, weights, strict=True)]
    assert len(seen) == 20
    kept = list(built.body.parameters())
    torch.testing.assert_close(kept, average, rtol=1e-4, atol=1e-6)
    assert not torch.equal(kept[-1], seen[-1][-1])
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(built.logits(val.images)), torch.from_numpy(val.labels))
    assert reports.epochs[-1][1]["val_loss"] == pytest.approx(loss.item(), abs=1e-4)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_learning_rate_rises_then_falls_to_zero(shape):
    factors = [learning_rate_factor(step, steps=100, warmup=10, shape=shape) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == max(factors) == 1
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    assert learning_rate_factor(25, 100, 0, "cosine") == pytest.approx((1 + 0.5**0.5) / 2)


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16"])
def test_auto_precision_is_bfloat16_where_the_hardware_multiplies_it(monkeypatch, capability):
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {capability: native})
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert precision(Compute(), "cpu") == precision(Compute(), "gpu") == expected
        assert precision(Compute(), "mps") == "float32"
    assert precision(Compute(precision="bfloat16"), "cpu") == "bfloat16"


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    for there, expected in ((True, "gpu"), (False, "cpu")):
        monkeypatch.setattr("lightning.fabric.accelerators.CUDAAccelerator.is_available", lambda there=there: there)
        monkeypatch.setattr("lightning.fabric.accelerators.MPSAccelerator.is_available", lambda: False)
        assert accelerator(Compute()) == expected
    with pytest.raises(UserError, match="compute.accelerator = 'gpu' is not on this machine: it has cpu"):
        accelerator(Compute(accelerator="gpu"))


def test_upsampling_commutes_with_normalisation():
    layer = Preprocessing(64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    resized = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2) / 255, size=(64, 64), mode="bicubic")
    expected = (resized - layer.mean) / layer.std
    torch.testing.assert_close(layer(images), expected, atol=1e-4, rtol=1e-4)
    layer.resize_by_matrices(32)
    torch.testing.assert_close(layer(images), expected, atol=1e-4, rtol=1e-4)


def test_the_scratch_vit_normalises_by_its_training_images():
    built, train = classifier("vit_scratch"), tinted(64)
    fit(built, train, train, epochs=1, compute=CPU)
    pixels = built.preprocessing(torch.from_numpy(train.images))
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    built.preprocessing.measure(np.full((2, 4, 4, 3), 51, np.uint8))  # of one colour: still finite
    assert built.preprocessing.mean.flatten().tolist() == pytest.approx([0.2] * 3)
    assert built.preprocessing.std.flatten().tolist() == pytest.approx([1 / 255] * 3)


def test_multiply_adds_and_parameters_are_counted():
    built = classifier("vit_scratch", embed_dim=8, depth=1, num_heads=1, patch_size=16, mlp_ratio=2.0)
    tokens, width, patch = 5, 8, 3 * 16 * 16
    # Keys and values of all tokens; query, output and MLP of the class token alone.
    matrices = 4 * patch * width + (2 * tokens + 2 + 2 * 2) * width * width + width * 4
    attention = 2 * tokens * width
    assert built.multiply_adds() == matrices + attention
    assert built.num_parameters == sum(parameter.numel() for parameter in built.body.parameters())
