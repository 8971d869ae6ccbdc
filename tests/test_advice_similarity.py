"""Similarity to a network's source domain: hand-made batch norm, the cases without an answer, and real pictures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fake_backbone import FAKE_TRANSFORM
from normalised_network import entries_of, shuffled_pictures, trained_on, varied_pictures
from torch import nn

from featx.advice.normalisation_statistics import ChannelStatistics, normalisation_layers
from featx.advice.similarity import measure_similarity
from featx.backbones import open_backbone
from featx.errors import UsageError
from featx.extraction.memory_entries import MemoryEntry
from featx.images import list_images


class Constant(nn.Module):
    """A classifier that is always as sure as asked, of 1,000 classes by default."""

    def __init__(self, confidence, n_classes=1000):
        super().__init__()
        rest = (1 - confidence) / (n_classes - 1)
        self.register_buffer("logits", torch.tensor([confidence] + [rest] * (n_classes - 1)).log())

    def forward(self, images):
        return self.logits + 0 * images.mean((1, 2, 3))[:, None]


def similarity_of(backbone, pictures, **options):
    """Return the similarity of pictures in memory."""
    return measure_similarity(backbone, entries_of(pictures), **options)


def test_the_source_itself_is_as_similar_as_can_be():
    """Pictures whose statistics are the running ones shift nothing."""
    pictures = varied_pictures(40)
    found = similarity_of(trained_on(pictures), pictures)
    assert found.value == pytest.approx(1, abs=0.01)
    assert found.verdict == "similar"
    assert found.method == "batch-norm statistics"
    assert found.n_images == 40
    assert [shift.layer for shift in found.by_depth] == ["first", "second"]


def test_scaled_pictures_shift_by_their_known_ratio():
    """Twice the contrast is four times the variance, ln 4 at either layer; the mean has moved as computed by hand."""
    pictures = shuffled_pictures(8)
    halved = ((pictures.astype(int) - 60) // 2 * 2 // 2).astype(np.uint8)  # whole numbers, so that twice is exact
    backbone = trained_on(halved)
    found = similarity_of(backbone, 2 * halved)
    mean = halved.astype(float).mean((0, 1, 2))
    variance = halved.astype(float).var((0, 1, 2))
    assert [shift.variance_shift for shift in found.by_depth] == pytest.approx([np.log(4)] * 2, rel=1e-4)
    assert found.by_depth[0].mean_shift == pytest.approx((mean**2 / variance).mean(), rel=1e-4)


def test_less_contrast_is_ever_less_similar():
    """Pictures that lose contrast step by step move away step by step."""
    backbone = trained_on(varied_pictures(32))
    values = [
        similarity_of(backbone, varied_pictures(32, contrast=contrast)).value for contrast in (1.0, 0.8, 0.6, 0.4, 0.2)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    assert values[-1] < 0.1


def test_the_interval_holds_the_value_and_narrows_with_more_images():
    """Between 0 and 1, around the value, and narrower with 96 images than with 12."""
    backbone = trained_on(varied_pictures(200))
    widths = []
    for n_images in (12, 96):
        found = similarity_of(backbone, varied_pictures(96, contrast=0.8, seed=1), n_images=n_images)
        low, high = found.interval
        assert 0 <= low <= found.value <= high <= 1
        assert found.n_images == n_images
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_images_are_taken_at_even_steps():
    """Four of twelve are the first of each three."""
    pictures = varied_pictures(12)
    backbone = trained_on(varied_pictures(30, seed=2))
    assert similarity_of(backbone, pictures, n_images=4) == similarity_of(backbone, pictures[::3])


def test_images_that_cannot_be_read_are_skipped():
    """Broken entries change nothing but which images are looked at."""
    pictures = varied_pictures(20)
    backbone = trained_on(varied_pictures(30, seed=2))
    broken = [MemoryEntry("broken", None, "is not an image")]
    entries = entries_of(pictures)
    assert measure_similarity(backbone, broken + entries[:7] + broken + entries[7:]) == similarity_of(
        backbone, pictures
    )


def test_statistics_are_those_of_the_whole_batch_by_torch():
    """What is kept by image and channel adds up to the mean and variance that torch computes over everything."""
    pictures = varied_pictures(21)
    backbone = trained_on(varied_pictures(30, seed=2))
    statistics = ChannelStatistics(normalisation_layers(backbone.module))
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with statistics.listening(), torch.no_grad():
        for batch in pixels.split(8):
            backbone.module(batch)
            statistics.end_batch(len(batch))
    first = statistics.samples()[0]
    pooled = first.variances.mean(0) + first.means.var(0)
    np.testing.assert_allclose(first.means.mean(0), pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(pooled, pixels.var((0, 2, 3), correction=0), rtol=1e-5)


def test_the_network_is_left_as_it_was():
    """No hooks, no other mode, every tensor the same bit for bit, and no random state or gradient mode changed."""
    backbone = trained_on(varied_pictures(30))
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    state = torch.random.get_rng_state()
    similarity_of(backbone, varied_pictures(20, seed=1))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in backbone.module.modules())
    assert not any(module.training for module in backbone.module.modules())
    assert all(torch.equal(value, before[name]) for name, value in backbone.module.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.is_grad_enabled()


def test_hooks_go_when_a_pass_fails():
    """An error in the network comes out, and leaves no hook behind."""

    class Failing(nn.Sequential):
        def forward(self, images):
            self[0](images)
            raise RuntimeError("in the middle")

    norm = nn.BatchNorm2d(3)
    norm.running_mean += 1
    backbone = open_backbone(Failing(norm), transform=FAKE_TRANSFORM)
    with pytest.raises(RuntimeError, match="in the middle"):
        similarity_of(backbone, varied_pictures(8))
    assert not norm._forward_pre_hooks


def test_a_layer_that_runs_twice_is_left_out():
    """Its statistics are of a mixture; the layers beside it still count."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.once, self.twice = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
            self.once.running_mean += 100
            self.twice.running_mean += 100

        def forward(self, images):
            return self.twice(self.twice(self.once(images))).mean((2, 3))

    found = similarity_of(open_backbone(Twice(), transform=FAKE_TRANSFORM), varied_pictures(8))
    assert [shift.layer for shift in found.by_depth] == ["once"]


def test_random_weights_have_no_source():
    """A network that was trained on nothing is similar to nothing, and it is not run for that."""
    backbone = open_backbone("test_efficientnet", weights="random:0")
    found = similarity_of(backbone, varied_pictures(8))
    assert (found.value, found.interval, found.verdict) == (None, None, "unknown")
    assert "random" in found.reason


def test_batch_norm_that_was_never_trained_does_not_count():
    """Running statistics as they were made are nobody's."""
    backbone = open_backbone(nn.Sequential(nn.BatchNorm2d(3)), transform=FAKE_TRANSFORM)
    assert normalisation_layers(backbone.module) == {}
    assert similarity_of(backbone, varied_pictures(8)).value is None


@pytest.mark.parametrize("confidence", [0.1, 0.3, 0.8])
def test_without_batch_norm_the_classifier_is_asked(confidence):
    """Confidence and entropy are those of the classifier, and the verdict follows the confidence."""
    backbone = open_backbone(Constant(confidence), transform=FAKE_TRANSFORM)
    found = similarity_of(backbone, varied_pictures(20))
    rest = (1 - confidence) / 999
    entropy = -(confidence * np.log(confidence) + 999 * rest * np.log(rest)) / np.log(1000)
    assert found.method == "classifier confidence"
    assert found.classifier.mean_confidence == pytest.approx(confidence, rel=1e-4)
    assert found.classifier.mean_entropy == pytest.approx(entropy, rel=1e-4)
    assert found.verdict == {0.1: "different", 0.3: "between", 0.8: "similar"}[confidence]
    assert found.interval == pytest.approx((found.value, found.value))
    assert "a weaker measure than batch norm" in found.reason
    assert found.by_depth == ()


def test_a_classifier_of_other_classes_gives_no_number():
    """What a confidence means is known for ImageNet's classes; the evidence itself is still reported."""
    found = similarity_of(open_backbone(Constant(0.9, n_classes=10), transform=FAKE_TRANSFORM), varied_pictures(8))
    assert found.value is None
    assert "10" in found.reason
    assert found.classifier.n_classes == 10


def test_no_batch_norm_and_no_classifier_is_unknown():
    """Maps are no logits: nothing to measure with."""
    found = similarity_of(open_backbone(nn.Conv2d(3, 4, 1), transform=FAKE_TRANSFORM), varied_pictures(8))
    assert (found.value, found.verdict, found.method) == (None, "unknown", "")
    assert "classifier" in found.reason


def test_too_few_images_is_unknown_with_their_number():
    """Three images that can be read of five say nothing, and neither does none."""
    backbone = trained_on(varied_pictures(30))
    broken = [MemoryEntry("broken", None, "is not an image")] * 2
    found = measure_similarity(backbone, broken + entries_of(varied_pictures(3)))
    assert found.value is None
    assert found.reason.startswith("3 of 5 images")
    assert measure_similarity(backbone, []).reason.startswith("0 of 0 images")


def test_asking_for_too_few_images_is_an_error():
    """The caller is told how many are enough."""
    with pytest.raises(UsageError, match="n_images is 3; give at least 4"):
        measure_similarity(trained_on(varied_pictures(8)), [], n_images=3)


def test_small_pictures_are_said_to_be_enlarged():
    """The reason names both sizes where enlarging is part of what was measured, and else not."""
    backbone = trained_on(varied_pictures(30))
    assert "enlarged" not in similarity_of(backbone, varied_pictures(8)).reason
    small = similarity_of(backbone, varied_pictures(8)[:, :3, :3])
    assert "pictures of 3 pixels are enlarged to 8" in small.reason


# What is in these sets, from the nearest to ImageNet to the farthest.
KINDS = (
    ("caltech_10", "pets3_180"),
    ("ucmerced_10", "cacao_360"),
    ("emoji_third",),
    ("omniglot_121", "bccd_cells_600"),
)


@pytest.fixture(scope="module")
def real_similarities(shared_data, default_backbone):
    """Return the similarity of real sets with 16 images each."""
    return {
        name: measure_similarity(default_backbone, list_images(shared_data / name).entries, n_images=16)
        for kind in KINDS
        for name in kind
    }


def test_real_sets_are_ordered_sensibly(real_similarities):
    """Photographs of things, other photographs, drawings, and characters and cells, with 16 images each."""
    values = [[real_similarities[name].value for name in kind] for kind in KINDS]
    for nearer, farther in itertools.pairwise(values):
        assert min(nearer) > max(farther)


def test_real_sets_get_the_verdict_they_were_calibrated_for(real_similarities):
    """The three kinds of sets, already with 16 images."""
    verdicts = [{real_similarities[name].verdict for name in kind} for kind in KINDS]
    assert verdicts == [{"similar"}, {"between"}, {"different"}, {"different"}]
