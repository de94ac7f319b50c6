"""Batches: order and augmentation."""

import random

import numpy as np
import pytest

from stages.training.batches import Batches, LabeledImages, augment, mix
from tests.models.small import settings_of


@pytest.fixture
def examples() -> LabeledImages:
    images = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    images.flags.writeable = False
    return LabeledImages(images, np.arange(50))


def test_an_epoch_visits_every_example_once_and_leaves_it_as_it_is(examples):
    batches = Batches(examples, batch_size=16, seed=3)
    seen = list(batches.epoch(0))
    assert [len(batch.labels) for batch in seen] == [16, 16, 16, 2]
    assert (len(batches), {batch.share for batch in seen}) == (4, {1})
    assert sorted(np.concatenate([batch.labels for batch in seen])) == list(range(50))
    np.testing.assert_array_equal(seen[0].images, examples.images[seen[0].labels])
    assert [batches.images_until(step) for step in (0, 2, 4, 4 * 3 + 3)] == [0, 32, 50, 198]
    assert [batches.steps_to(images) for images in (0, 1, 16, 17, 50, 51, 198, 199, 200)] == [
        0,
        1,
        1,
        2,
        4,
        5,
        15,
        16,
        16,
    ]


@pytest.mark.parametrize(
    "options", [{"crop_padding": 4, "flip": True}, {"mixup": 0.8}, {"cutmix": 1.0}, {"rand_augment": 9}]
)
def test_a_batch_is_a_function_of_seed_epoch_and_index(examples, options):
    def batches(seed=3, **options):
        return Batches(examples, 16, seed, **options)

    random.seed(1), np.random.seed(1)
    one = list(batches(**options).epoch(2))[1]
    random.seed(2), np.random.seed(2)
    state = random.getstate(), np.random.get_state()[1].tolist()
    for again in (next(batches(**options).epoch(2, start=1)), batches(**options).batch(2, 1)):
        np.testing.assert_array_equal(one.images, again.images)
        np.testing.assert_array_equal(one.labels, again.labels)
        assert one.share == again.share
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state, "the caller's random numbers"
    plain = batches().batch(2, 1)
    np.testing.assert_array_equal(one.labels, plain.labels)
    assert not np.array_equal(one.images, plain.images)
    assert one.images.dtype == np.uint8
    for other in (batches(seed=4).batch(2, 1), batches().batch(1, 1)):
        assert not np.array_equal(other.labels, one.labels)


def test_augmentation_draws_differ_between_batches(examples):
    same = LabeledImages(np.repeat(examples.images[:1], 32, axis=0), np.zeros(32, np.int64))
    batches = Batches(same, 16, seed=0, crop_padding=4, flip=True)
    assert not np.array_equal(batches.batch(0, 0).images, batches.batch(0, 1).images)


def test_a_crop_is_a_window_of_the_mirrored_border_image(examples):
    image = examples.images[:1]
    crops = augment(np.repeat(image, 200, axis=0), np.random.default_rng(0), crop_padding=2, flip=False)
    padded = np.pad(image[0], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[y : y + 32, x : x + 32].tobytes() for y in range(5) for x in range(5)}
    found = {crop.tobytes() for crop in crops}
    assert found <= windows
    assert len(found) == 25  # 200 draws of 25 windows miss one with probability below 1 %


def test_about_half_of_the_images_are_mirrored_left_to_right(examples):
    image = examples.images[:1]
    flipped = augment(np.repeat(image, 400, axis=0), np.random.default_rng(0), crop_padding=0, flip=True)
    mirrored = sum(np.array_equal(one, image[0][:, ::-1]) for one in flipped)
    assert 150 < mirrored < 250
    assert all(np.array_equal(one, image[0]) or np.array_equal(one, image[0][:, ::-1]) for one in flipped)


def test_mixup_blends_each_image_with_its_partner(examples):
    images, labels = examples.images[:5], examples.labels[:5]
    batch = mix(images, labels, np.random.default_rng(0), mixup=1.0, cutmix=0.0)
    assert 0 < batch.share < 1
    np.testing.assert_array_equal(batch.others, [4, 3, 2, 1, 0])
    expected = batch.share * images[1].astype(float) + (1 - batch.share) * images[3]
    assert np.abs(batch.images[1] - expected).max() <= 0.51
    np.testing.assert_array_equal(batch.images[2], images[2])


def test_cutmix_pastes_as_much_as_it_says(examples):
    black, white = np.zeros((1, 32, 32, 3), np.uint8), np.full((1, 32, 32, 3), 255, np.uint8)
    images = np.concatenate([black, white])
    shares = []
    for seed in range(200):
        batch = mix(images, np.array([0, 1]), np.random.default_rng(seed), mixup=0.0, cutmix=1.0)
        assert (batch.images[0] == 0).mean() == pytest.approx(batch.share)
        assert (batch.images[1] == 255).mean() == pytest.approx(batch.share)
        shares.append(batch.share)
    assert min(shares) < 0.2 < 0.8 < max(shares)
    assert (images[0] == 0).all()


def test_where_both_are_asked_for_each_mixes_about_half_of_the_batches():
    images = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 200, np.uint8)])
    values = [
        set(np.unique(mix(images, np.array([0, 1]), np.random.default_rng(seed), 0.8, 1.0).images))
        for seed in range(200)
    ]
    pasted = sum(seen <= {0, 200} for seen in values)
    assert 60 < pasted < 140


def test_every_option_of_the_settings_arrives(examples):
    changes = {"batch_size": 8, "crop_padding": 2, "flip": False, "rand_augment": 5, "mixup": 0.8, "cutmix": 1.0}
    batches = Batches.of(examples, settings_of("vit_scratch", **changes), seed=7)
    assert batches == Batches(examples, seed=7, **changes)
    assert batches.batch(0, 0).images.shape == (8, 32, 32, 3)
    assert Batches.of(examples, settings_of("mobilenet_transfer"), seed=7).mixup == 0
