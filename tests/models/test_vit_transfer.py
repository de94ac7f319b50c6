"""vit_transfer: initial weights, what is trained at which rate, sizes, and settings that cannot work."""

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from stages.common.errors import UserError
from stages.training import fit
from tests.models.small import CPU, classifier, tinted

VIT_TINY = {"backbone": "vit_tiny_patch16_224"}


def vit_transfer(**changes):
    return classifier("vit_transfer", **changes)


def test_the_rate_falls_from_block_to_block_and_only_matrices_decay():
    built = vit_transfer(lr=0.4, layer_decay=0.5, head_lr=0.7, weight_decay=0.1)
    groups = built.optimizer("float32").param_groups
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    body = built.body
    assert len(of) == len(list(body.parameters()))
    rates = [of[id(block.mlp.fc1.weight)]["lr"] for block in body.blocks]
    assert rates == pytest.approx([0.4 * 0.5 ** (len(rates) - index) for index in range(len(rates))])
    assert of[id(body.patch_embed.proj.weight)]["lr"] == pytest.approx(rates[0] / 2)
    assert of[id(body.head.weight)]["lr"] == of[id(body.head.bias)]["lr"] == 0.7
    decaying = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert decaying == {id(parameter) for parameter in body.parameters() if parameter.ndim in (2, 4)}


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_only_bfloat16_training_on_a_cpu_does_without_fused_attention(precision):
    used = {"training": set(), "evaluation": set()}
    built, train = vit_transfer(), tinted(32)
    attention = built.body.blocks[0].attn
    attention.register_forward_pre_hook(
        lambda layer, inputs: used["training" if layer.training else "evaluation"].add(layer.fused_attn)
    )
    fit(built, train, train, epochs=2, compute=CPU.model_copy(update={"precision": precision}))
    assert used == {"training": {precision == "float32"}, "evaluation": {True}}


def test_a_training_may_begin_with_smaller_images():
    sizes = []
    built = vit_transfer(**VIT_TINY, image_size=64, small_size=32, small_fraction=0.75, batch_size=8)
    before = built.body.pos_embed.clone()
    built.body.patch_embed.register_forward_pre_hook(lambda layer, inputs: sizes.append(inputs[0].shape[-1]))
    fit(built, tinted(64), tinted(16), epochs=1, compute=CPU)
    assert sizes == [32] * 6 + [64] * 2 + [64]  # training, then validation
    assert torch.equal(built.body.pos_embed, before)
    assert built.logits(tinted(3).images).shape == (3, 4)
    assert sizes[-1] == 64


def test_training_may_leave_out_patches_but_not_in_its_last_tenth_nor_in_evaluation():
    tokens, patches = [], []
    built = vit_transfer(**VIT_TINY, image_size=64, patch_dropout=0.5, batch_size=4)
    built.body.blocks[0].register_forward_pre_hook(lambda layer, inputs: tokens.append(inputs[0].detach()))
    built.body.patch_drop.register_forward_pre_hook(lambda layer, inputs: patches.append(inputs[0].detach()))
    fit(built, tinted(40), tinted(4), epochs=1, compute=CPU)
    assert [part.shape[1] for part in tokens] == [1 + 8] * 9 + [1 + 16] * 2  # the last one: validation
    assert torch.equal(tokens[0][:, 0], patches[0][:, 0])  # the class token stays
    kept = [[patches[0][image].tolist().index(row) for row in tokens[0][image].tolist()] for image in range(4)]
    assert all(len(set(rows)) == 9 for rows in kept)
    assert len({frozenset(rows) for rows in kept}) > 1  # other patches in each image


def donor_file(folder, prefix="", **options):
    """Weights of timm's ViT-Tiny in a file; and the network."""
    torch.manual_seed(1)
    donor = timm.create_model("vit_tiny_patch16_224", pretrained=False, **options)
    file = folder / "donor.safetensors"
    save_file({prefix + name: tensor for name, tensor in donor.state_dict().items()}, file)
    return str(file), donor


def test_weights_from_a_file_arrive_with_positions_resampled_and_a_new_head(tmp_path):
    file, donor = donor_file(tmp_path)
    built = vit_transfer(**VIT_TINY, weights=file, image_size=96)
    torch.testing.assert_close(built.body.blocks[3].mlp.fc1.weight, donor.blocks[3].mlp.fc1.weight)
    assert built.body.pos_embed.shape == (1, 1 + 36, 192)
    assert built.body.head.weight.shape == (4, 192)
    assert built.resolved["weights"] == "file"
    assert len(built.resolved["weights_sha256"]) == 64
    config = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    assert built.preprocessing.mean.flatten().tolist() == pytest.approx(config.mean)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vit_tiny_patch16_225"}, "is no model of timm; did you mean"),
        ({"backbone": "swin_tiny_patch4_window7_224", "image_size": 224}, "no Vision Transformer with one head"),
        ({"backbone": "deit_tiny_distilled_patch16_224"}, "no Vision Transformer with one head"),
        ({"image_size": 40}, "image_size = 40 is no multiple of the patch size 16"),
        ({"small_size": 24}, "small_size = 24 is no multiple of the patch size 16"),
        ({"weights": "nowhere.safetensors"}, "weights = 'nowhere.safetensors' is no .safetensors file"),
        ({"weights": "pretrained", "backbone": "test_vit4"}, "timm has no pretrained weights for test_vit4"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(monkeypatch, changes, message):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(UserError, match=message) as caught:
        vit_transfer(**(VIT_TINY | changes))
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path):
    file, _ = donor_file(tmp_path, embed_dim=96)
    with pytest.raises(UserError, match="size mismatch"):
        vit_transfer(**VIT_TINY, weights=file)
    file, _ = donor_file(tmp_path, prefix="encoder.")  # which timm would leave random
    with pytest.raises(UserError, match="lacks 150 of the network's tensors, the first is 'blocks.0.attn"):
        vit_transfer(**VIT_TINY, weights=file)


@pytest.mark.parametrize(
    ("name", "message"),
    [("bad.safetensors", "cannot build vit_tiny_patch16_224"), ("weights.pth", "others can hold code")],
)
def test_damaged_weights_and_pickles_are_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UserError, match=message):
        vit_transfer(**VIT_TINY, weights=str(tmp_path / name))


def unreachable(url, **options):
    assert options["timeout"] <= 10
    raise ConnectionError("no route to host")


def test_pretrained_without_network_says_so_at_once(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(UserError) as caught:
        vit_transfer(**VIT_TINY, weights="pretrained")
    for part in ("vit_tiny_patch16_224", "https://", "no route to host", "models.vit_transfer.weights", "random"):
        assert part in str(caught.value)
