"""The Vision Transformer's architecture."""

import pytest
import timm
import torch

from stages.models.vit_scratch.vit import (
    StochasticDepth,
    VisionTransformer,
    attention,
    sine_cosine_grid,
)
from tests.models.small import classifier, tinted

RENAMED = {
    "class_token": "cls_token",
    "position_embedding": "pos_embed",
    "patch_embedding.projection": "patch_embed.proj",
    "attention.query": "attn.qkv",
    "attention.output": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
POOLING = {"cls": {"class_token": True, "global_pool": "token"}, "mean": {"class_token": False, "global_pool": "avg"}}


def copy_into_timm(ours: VisionTransformer, theirs: torch.nn.Module) -> None:
    state, expected, copied = ours.state_dict(), theirs.state_dict(), {}
    for name, tensor in state.items():
        if ".key." in name or ".value." in name:
            continue
        if ".query." in name:  # timm has one matrix for all three
            tensor = torch.cat([state[name.replace("query", part)] for part in ("query", "key", "value")])
        for our, their in RENAMED.items():
            name = name.replace(our, their)
        if name not in expected:  # timm names the last norm after what it sees
            name = name.replace("norm.", "fc_norm.")
        copied[name] = tensor.reshape(expected[name].shape)
    theirs.load_state_dict(copied)  # strict: every weight has its counterpart


@pytest.mark.parametrize("pool", POOLING)
@pytest.mark.parametrize(("image_size", "patch_size", "heads", "ratio"), [(32, 4, 3, 4.0), (48, 16, 4, 2.0)])
def test_it_equals_timms_under_copied_weights(image_size, patch_size, heads, ratio, pool):
    torch.manual_seed(0)
    sizes = {"patch_size": patch_size, "embed_dim": 48, "depth": 3, "num_heads": heads, "mlp_ratio": ratio}
    ours = VisionTransformer(image_size, num_classes=7, pool=pool, **sizes).eval()
    for parameter in ours.parameters():  # initial zeros would hide a missing bias or head
        torch.nn.init.normal_(parameter, std=0.1)
    theirs = timm.models.VisionTransformer(img_size=image_size, num_classes=7, **POOLING[pool], **sizes).eval()
    copy_into_timm(ours, theirs)
    pixels = torch.randn(5, 3, image_size, image_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [24, 300])  # fewer and more than the 192 numbers of a patch
def test_patches_start_whitened_by_those_of_the_training_images(width):
    built, images = classifier("vit_scratch", embed_dim=width), tinted(2000).images

    def variances() -> list[float]:
        tokens = built.body.patch_embedding(built.preprocessing(torch.from_numpy(images))).flatten(0, 1)
        return torch.linalg.eigvalsh(tokens.T @ tokens / len(tokens))[-min(width, 192) :].tolist()

    built.preprocessing.measure(images)
    assert variances()[-1] > 5 * variances()[0]  # the tint
    built.before_training(images)
    assert variances() == pytest.approx([max(1, width / 192)] * min(width, 192), rel=0.1)


def test_patches_do_not_start_whitened_where_that_is_not_wanted():
    built = classifier("vit_scratch", whitening=None)
    before = built.body.patch_embedding.projection.weight.clone()
    built.before_training(tinted(200).images)
    torch.testing.assert_close(built.body.patch_embedding.projection.weight, before, rtol=0, atol=0)


def test_at_first_every_class_is_as_likely():
    logits = VisionTransformer(32, num_classes=3)(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(logits, torch.zeros(2, 3))


def test_attention_in_bfloat16_training_is_the_fused_one_written_out():
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, 5, 8, dtype=torch.bfloat16) for _ in range(3)]
    fused = torch.nn.functional.scaled_dot_product_attention(*tensors)
    for tensor in tensors:
        tensor.requires_grad_()
    plain = attention(*tensors)
    assert "ScaledDotProduct" not in str(plain.grad_fn)
    torch.testing.assert_close(plain, fused, atol=0.02, rtol=0.02)


def test_stochastic_depth_leaves_out_whole_branches_in_training_alone():
    torch.manual_seed(0)
    layer = StochasticDepth(0.25)
    branch = torch.ones(4000, 3, 2)
    assert torch.equal(layer.eval()(branch), branch)
    dropped = layer.train()(branch)
    assert dropped.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert torch.equal(dropped.amin((1, 2)), dropped.amax((1, 2)))  # an image as a whole
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)


def test_stochastic_depth_grows_with_the_block():
    network = VisionTransformer(32, 4, embed_dim=12, depth=3, num_heads=1, drop_path=0.2)
    assert [block.drop_path.rate for block in network.blocks] == pytest.approx([0, 0.1, 0.2])


def test_positions_start_as_sines_and_cosines():
    grid = sine_cosine_grid(8, 194)
    assert grid.shape == (64, 194)
    assert (grid[:, 192:] == 0).all()  # what four does not divide
    theirs = timm.layers.build_sincos2d_pos_embed([8, 8], 192, interleave_sin_cos=False)
    # timm orders the quarters otherwise.
    assert torch.allclose(grid[:, :192].sort(1).values, theirs.sort(1).values, atol=1e-5)
    positions = VisionTransformer(32, num_classes=3).position_embedding
    assert (positions[:, 0] == 0).all()  # of the class token
    assert positions[:, 1:].square().mean().sqrt().item() == pytest.approx(0.3, rel=0.02)


def test_the_class_token_starts_as_the_mean_of_the_tokens():
    network, seen = VisionTransformer(32, num_classes=3), []
    last = network.blocks[-1]
    last.register_forward_pre_hook(lambda layer, inputs: seen.append(layer.norm1(inputs[0]).mean(1)))
    last.attention.register_forward_hook(lambda layer, inputs, taken: seen.append(taken))
    with torch.inference_mode():
        network(torch.randn(2, 3, 32, 32))
    mean, taken = seen
    assert taken.shape == (2, 1, 192)  # the patches' rows are not computed
    assert (taken[:, 0] - mean).norm() < 0.1 * mean.norm()


def test_the_class_token_sees_every_patch_and_teaches_every_weight():
    network = VisionTransformer(32, num_classes=3, depth=2)
    torch.nn.init.normal_(network.head.weight)
    pixels = torch.randn(2, 3, 32, 32).requires_grad_()
    network(pixels)[:, 0].sum().backward()
    assert (pixels.grad.unfold(2, 4, 4).unfold(3, 4, 4).abs().sum((1, 4, 5)) > 0).all()
    untaught = {name for name, parameter in network.named_parameters() if not parameter.grad.any()}
    assert untaught - {f"blocks.{index}.attention.key.bias" for index in range(2)} == set()  # softmax ignores it
