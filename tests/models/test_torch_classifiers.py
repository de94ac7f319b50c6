"""vit_scratch and vit_transfer behind the contract: training, inference, saving."""

import json
import math
import signal

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from stages.common.errors import UserError
from stages.common.settings import Compute
from stages.models import classifier_class, load
from stages.models.base import Examples, Reporter
from stages.models.torch_engine.preprocessing import Preprocessing
from stages.models.vit_scratch.model import VitScratch
from stages.models.vit_transfer.model import VitTransfer
from stages.training.torch_engine.loop import learning_rate_factor
from stages.training.torch_engine.precision import multiplies_bfloat16, resolve_device, resolve_precision

CPU = Compute(accelerator="cpu", precision="float32", threads=1)
TINY = {
    "embed_dim": 24,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 8,
    "batch_size": 16,
}


@pytest.fixture
def vit_scratch(settings_of):
    return lambda seed=0, **changes: VitScratch(settings_of("vit_scratch", **(TINY | changes)), 4, 32, seed)


@pytest.fixture
def vit_transfer(settings_of):
    defaults = {"backbone": "vit_tiny_patch16_224", "weights": "random", "image_size": 32, "batch_size": 16}
    return lambda seed=0, **changes: VitTransfer(settings_of("vit_transfer", **(defaults | changes)), 4, 32, seed)


@pytest.fixture(params=["vit_scratch", "vit_transfer"])
def make(request):
    return request.getfixturevalue(request.param)


def fit(classifier, train, val, epochs=1, reporter=None):
    reporter = reporter or Reporter(lambda step, metrics: None, lambda epoch, metrics: None)
    classifier.fit(train, val, epochs=epochs, compute=CPU, reporter=reporter)


def test_vit_scratch_learns_and_says_how_it_goes(vit_scratch, easy_examples, reports):
    classifier = vit_scratch()
    val = easy_examples(100, seed=1)
    fit(classifier, easy_examples(320), val, epochs=3, reporter=reports.reporter)
    assert [epoch for epoch, _ in reports.epochs] == [1, 2, 3]
    assert [step for step, _ in reports.steps] == [20, 40, 60]
    first, last = reports.epochs[0][1], reports.epochs[-1][1]
    assert last["train_loss"] < first["train_loss"]
    assert last["val_top1"] > 0.9
    assert set(last) == {"train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"}
    # What was reported is what the trained network does.
    logits = classifier.logits(val.images)
    assert last["val_top1"] == pytest.approx((logits.argmax(1) == val.labels).mean(), abs=1e-6)
    nll = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(val.labels))
    assert last["val_loss"] == pytest.approx(float(nll), abs=1e-4)


def test_vit_transfer_learns(vit_transfer, easy_examples, reports):
    classifier = vit_transfer(lr=1e-3)
    fit(classifier, easy_examples(320), easy_examples(100, seed=1), epochs=2, reporter=reports.reporter)
    assert reports.epochs[-1][1]["val_top1"] > 0.9


def test_the_same_seed_gives_the_same_weights_file_and_another_seed_another(make, easy_examples, tmp_path):
    contents = []
    for index, seed in enumerate((0, 0, 1)):
        classifier = make(seed=seed)
        fit(classifier, easy_examples(32), easy_examples(16, seed=1))
        folder = tmp_path / str(index)
        folder.mkdir()
        classifier.save(folder)
        contents.append((folder / "weights.safetensors").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_building_a_classifier_leaves_the_callers_random_numbers_alone(make):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make()
    torch.testing.assert_close(torch.rand(3), expected)


def test_a_saved_classifier_comes_back_with_the_same_logits(make, easy_examples, tmp_path):
    classifier = make()
    examples = easy_examples(48)
    fit(classifier, examples, examples)
    classifier.save(tmp_path)
    again = load(tmp_path)
    np.testing.assert_array_equal(again.logits(examples.images), classifier.logits(examples.images))
    assert again.logits(examples.images).dtype == np.float32
    assert {file.name for file in tmp_path.iterdir()} == {"weights.safetensors", "classifier.json"}


def test_logits_take_pictures_of_any_size_and_do_not_depend_on_the_batch(make, easy_examples):
    classifier = make()
    fit(classifier, easy_examples(16), easy_examples(16))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    logits = classifier.logits(images)
    assert logits.shape == (3, 4)
    np.testing.assert_allclose(classifier.logits(images[1:2]), logits[1:2], atol=1e-5)
    np.testing.assert_array_equal(classifier.logits(classifier.shrink(images)), logits)
    assert classifier.logits(images[:0]).shape == (0, 4)


def test_frozen_backbones_stay_as_they_were(vit_transfer, easy_examples):
    classifier = vit_transfer(finetune="head")
    before = {name: tensor.clone() for name, tensor in classifier.body.state_dict().items()}
    fit(classifier, easy_examples(32), easy_examples(16))
    changed = {name for name, tensor in classifier.body.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_the_rate_falls_from_block_to_block_and_only_matrices_decay(vit_transfer):
    classifier = vit_transfer(backbone="test_vit", lr=0.4, layer_decay=0.5, head_lr=0.7, weight_decay=0.1)
    groups = classifier.optimizer("float32").param_groups
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    body = classifier.body
    assert len(of) == len(list(body.parameters()))
    rates = [of[id(block.mlp.fc1.weight)]["lr"] for block in body.blocks]
    assert rates == pytest.approx([0.4 * 0.5 ** (len(rates) - index) for index in range(len(rates))])
    assert of[id(body.patch_embed.proj.weight)]["lr"] == pytest.approx(rates[0] / 2)
    assert of[id(body.head.weight)]["lr"] == of[id(body.head.bias)]["lr"] == 0.7
    decaying = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert decaying == {id(parameter) for parameter in body.parameters() if parameter.ndim in (2, 4)}


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_only_bfloat16_training_on_a_cpu_does_without_fused_attention(vit_transfer, easy_examples, precision):
    used = {"training": set(), "evaluation": set()}
    classifier = vit_transfer(backbone="test_vit")
    attention = classifier.body.blocks[0].attn
    attention.register_forward_pre_hook(
        lambda layer, inputs: used["training" if layer.training else "evaluation"].add(layer.fused_attn)
    )
    compute = Compute(accelerator="cpu", precision=precision, threads=1)
    train = easy_examples(32)
    classifier.fit(train, train, epochs=2, compute=compute, reporter=Reporter.silent())
    assert used == {"training": {precision == "float32"}, "evaluation": {True}}


def test_a_training_may_begin_with_smaller_pictures(vit_transfer, easy_examples, monkeypatch):
    sizes = []
    classifier = vit_transfer(image_size=64, small_size=32, small_fraction=0.75, batch_size=8)
    before = classifier.body.pos_embed.clone()
    classifier.body.patch_embed.register_forward_pre_hook(lambda layer, inputs: sizes.append(inputs[0].shape[-1]))
    fit(classifier, easy_examples(64), easy_examples(16), epochs=1)
    assert sizes == [32] * 6 + [64] * 2 + [64]  # training, then validation
    assert torch.equal(classifier.body.pos_embed, before)
    assert classifier.logits(easy_examples(3).images).shape == (3, 4)
    assert sizes[-1] == 64


def test_weights_from_a_file_arrive_with_positions_resampled_and_a_new_head(vit_transfer, tmp_path):
    torch.manual_seed(1)
    donor = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    file = tmp_path / "donor.safetensors"
    save_file(donor.state_dict(), file)
    classifier = vit_transfer(weights=str(file), image_size=96)
    torch.testing.assert_close(classifier.body.blocks[3].mlp.fc1.weight, donor.blocks[3].mlp.fc1.weight)
    assert classifier.body.pos_embed.shape == (1, 1 + 36, 192)
    assert classifier.body.head.weight.shape == (4, 192)
    assert classifier.resolved["weights"] == "file"
    assert len(classifier.resolved["weights_sha256"]) == 64
    config = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    assert classifier.preprocessing.mean.flatten().tolist() == pytest.approx(config.mean)


def test_the_scratch_vit_normalises_by_its_training_pictures(vit_scratch, easy_examples):
    classifier = vit_scratch()
    train = easy_examples(64)
    fit(classifier, train, train)
    pixels = classifier.preprocessing(torch.from_numpy(train.images))
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_upsampling_commutes_with_normalisation():
    layer = Preprocessing(64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    resized = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2) / 255, size=(64, 64), mode="bicubic")
    expected = (resized - layer.mean) / layer.std
    torch.testing.assert_close(layer(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vit_tiny_patch16_225"}, "is no model of timm; did you mean"),
        ({"backbone": "swin_tiny_patch4_window7_224", "image_size": 224}, "not a Vision Transformer"),
        ({"backbone": "deit_tiny_distilled_patch16_224"}, "more than one head"),
        ({"image_size": 40}, "image_size = 40 is no multiple of the patch size 16"),
        ({"small_size": 24}, "small_size = 24 is no multiple of the patch size 16"),
        ({"weights": "nowhere.safetensors"}, "cannot read weights = 'nowhere.safetensors'.*No such file"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(vit_transfer, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        vit_transfer(**changes)
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(vit_transfer, tmp_path):
    file = tmp_path / "small.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", pretrained=False, embed_dim=96).state_dict(), file)
    with pytest.raises(UserError, match="size mismatch"):
        vit_transfer(weights=str(file))


def test_weights_under_other_names_are_refused_instead_of_left_random(vit_transfer, tmp_path):
    file = tmp_path / "prefixed.safetensors"
    donor = timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict()
    save_file({f"encoder.{name}": tensor for name, tensor in donor.items()}, file)
    with pytest.raises(UserError, match="lacks 150 of the network's tensors, the first is 'blocks.0.attn"):
        vit_transfer(weights=str(file))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04K\x01."])
def test_damaged_weights_are_refused(vit_transfer, tmp_path, content):
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot build vit_tiny_patch16_224"):
        vit_transfer(weights=str(file))


def test_a_pickle_is_refused_as_weights(vit_transfer, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({}, file)
    with pytest.raises(UserError, match="can hold code"):
        vit_transfer(weights=str(file))


def test_pretrained_without_network_says_so_at_once(vit_transfer, monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(url, **options):
        assert options["timeout"] <= 10
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(UserError) as caught:
        vit_transfer(weights="pretrained")
    for part in ("vit_tiny_patch16_224", "https://", "no route to host", "models.vit_transfer.weights", "random"):
        assert part in str(caught.value)


def test_changed_weights_are_refused_on_loading(vit_scratch, tmp_path):
    vit_scratch().save(tmp_path)
    content = bytearray((tmp_path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path)


def test_a_folder_without_classifier_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no saved classifier"):
        load(tmp_path)


def test_weights_that_do_not_fit_the_description_are_refused(vit_scratch, tmp_path):
    vit_scratch().save(tmp_path)
    description = json.loads((tmp_path / "classifier.json").read_text())
    description["settings"]["depth"] = 2
    (tmp_path / "classifier.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="does not fit vit_scratch"):
        load(tmp_path)


def test_a_diverging_loss_stops_the_training(vit_scratch, easy_examples):
    train = easy_examples(400)
    classifier = vit_scratch()
    with torch.no_grad():
        classifier.body.head.bias.fill_(float("inf"))
    with pytest.raises(UserError, match="lower the learning rate"):
        fit(classifier, train, train)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_lower(vit_scratch, easy_examples, error):
    def fail(epoch, metrics):
        raise error

    with pytest.raises(UserError, match="vit_scratch: out of memory with batch_size = 16: lower it") as caught:
        fit(vit_scratch(), easy_examples(32), easy_examples(16), reporter=Reporter(lambda step, metrics: None, fail))
    assert "\n" not in str(caught.value)


def test_other_errors_keep_their_names(vit_scratch, easy_examples):
    def fail(epoch, metrics):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        fit(vit_scratch(), easy_examples(32), easy_examples(16), reporter=Reporter(lambda step, metrics: None, fail))


@pytest.mark.parametrize("changes", [{"strategy": "no-such-strategy"}, {"devices": 2, "accelerator": "mps"}])
def test_devices_that_lightning_cannot_use_are_refused_in_one_line(vit_scratch, easy_examples, changes):
    compute = CPU.model_copy(update=changes)
    with pytest.raises(UserError, match=r"compute\.") as caught:
        vit_scratch().fit(easy_examples(32), easy_examples(16), epochs=1, compute=compute, reporter=Reporter.silent())
    assert "\n" not in str(caught.value)


def test_ctrl_c_ends_a_training_as_ctrl_c_does_elsewhere(make, easy_examples):
    def interrupt(epoch, metrics):
        signal.raise_signal(signal.SIGINT)

    train = easy_examples(32)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(make(), train, train, reporter=Reporter(lambda step, metrics: None, interrupt))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_unknown_classifier_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="choose one of mobilenet_transfer, vit_scratch, vit_transfer"):
        classifier_class("resnet")


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_learning_rate_rises_then_falls_to_zero(shape):
    factors = [learning_rate_factor(step, steps=100, warmup=10, shape=shape) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == max(factors) == 1
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)
    middle = factors[55]
    assert middle == pytest.approx(0.5)
    assert (1 + math.cos(math.pi * 0.25)) / 2 == pytest.approx(learning_rate_factor(25, 100, 0, "cosine"))


def test_auto_precision_looks_at_the_hardware(monkeypatch):
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native})
        assert resolve_precision(Compute(), "cpu") == expected
        assert multiplies_bfloat16("cpu") is native
    assert resolve_precision(Compute(precision="bfloat16"), "cpu") == "bfloat16"


def test_a_missing_accelerator_is_named(monkeypatch):
    monkeypatch.setattr("lightning.fabric.accelerators.CUDAAccelerator.is_available", lambda: False)
    with pytest.raises(UserError, match="compute.accelerator = 'gpu' is not on this machine"):
        resolve_device(Compute(accelerator="gpu"))


def test_bfloat16_training_learns_too(vit_scratch, easy_examples, reports):
    classifier = vit_scratch()
    compute = Compute(accelerator="cpu", precision="bfloat16", threads=1)
    classifier.fit(easy_examples(160), easy_examples(64, seed=1), epochs=2, compute=compute, reporter=reports.reporter)
    assert classifier.resolved["precision"] == "bfloat16"
    assert reports.epochs[-1][1]["val_top1"] > 0.5
    assert classifier.logits(np.zeros((1, 32, 32, 3), np.uint8)).dtype == np.float32


def test_multiply_adds_and_parameters_are_counted(vit_scratch):
    classifier = vit_scratch(embed_dim=8, depth=1, num_heads=1, patch_size=16, mlp_ratio=2.0)
    tokens, width, patch = 4, 8, 3 * 16 * 16
    matrices = 4 * patch * width + tokens * (4 * width * width + 2 * 2 * width * width) + width * 4
    attention = 2 * tokens * tokens * width
    assert classifier.multiply_adds() == matrices + attention
    assert classifier.num_parameters == sum(parameter.numel() for parameter in classifier.body.parameters())


def test_examples_may_be_memory_mapped_and_read_only(vit_scratch, easy_examples, tmp_path):
    examples = easy_examples(32)
    np.save(tmp_path / "images.npy", examples.images)
    mapped = Examples(np.load(tmp_path / "images.npy", mmap_mode="r"), examples.labels)
    fit(vit_scratch(), mapped, mapped)
