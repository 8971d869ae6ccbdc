"""The constants that turn measured distances into a similarity from 0 to 1, and into a verdict.

A distance d becomes ``1 / (1 + (d / middle) ** steepness)``, which is 1 at no distance, and 2/3 and 1/3 at the two
distances between which the verdict is "between".

Set by ``scripts/score_similarity.py ../shared/data``, with 96 images of each of seven sets, on four networks with
batch norm (``tf_efficientnet_lite0``, ``lite1``, ``lite2``, ``mobilenetv2_100``) and one without (``squeezenet1_1``).
All seven sets were used to set the constants; none was kept back to test them.

- Shift of the batch-norm statistics. Photographs of things (caltech_10, pets3_180) reached 0.29 at the most, aerial
  photographs and close-ups of pods (ucmerced_10, cacao_360) 0.36 to 0.44, drawings, characters and blood cells
  (emoji_third, omniglot_121, bccd_cells_600) at least 0.68. The limits are the geometric means of the two gaps, in two
  digits. Limits from lite0 alone (0.33 and 0.53) give the other three the same verdicts; from mobilenetv2_100 alone
  (0.25 and 0.54) they would put pets3_180, 0.27 to 0.29 with the others, at "between".
- Confidence of the classifier, for networks without batch norm: squeezenet1_1 and lite0. Photographs reached at least
  0.44 and all other sets at most 0.42. The lower limit is weak: SqueezeNet is as sure of omniglot_121 (0.42, mostly of
  one class) as of emoji, and far sets come out as "between" rather than "different". Networks trained with smoothed
  labels (lite1, lite2) are less confident everywhere, and err towards "between" and "different".

cifar10_5k was not used: its everyday things, enlarged from 32 pixels, come out as "different" (1.0). Most of that is
blur: caltech_10 and pets3_180 go from 0.17 and 0.29 to 0.72 and 0.81 (lite0, 48 images) when they are made that small
first (``--blur 32``).
"""

from __future__ import annotations

import math

SIMILAR, DIFFERENT = 2 / 3, 1 / 3  # similarities from which, and up to which, the verdict is so
NEAR_SHIFT, FAR_SHIFT = 0.33, 0.55  # of batch-norm statistics, at these two similarities
NEAR_CONFIDENCE, FAR_CONFIDENCE = 0.43, 0.22  # of a classifier, at these two similarities
CALIBRATED_CLASSES = (1000, 1001)  # how many classes the classifiers of ImageNet have, without and with "background"
MIN_IMAGES = 4  # fewer say nothing about how much images differ from each other


def similarity_of_shift(shift: float) -> float:
    """Return the similarity 0..1 that a shift of the batch-norm statistics means."""
    return _graded(shift, NEAR_SHIFT, FAR_SHIFT)


def similarity_of_confidence(confidence: float) -> float:
    """Return the similarity 0..1 that a classifier's mean confidence 0..1 means; the distance is 1 / confidence."""
    return _graded(1 / max(confidence, 1e-9), 1 / NEAR_CONFIDENCE, 1 / FAR_CONFIDENCE)


def verdict_of(similarity: float | None) -> str:
    """Return "similar", "between" or "different", or "unknown" for None."""
    if similarity is None:
        return "unknown"
    if similarity >= SIMILAR:
        return "similar"
    return "between" if similarity > DIFFERENT else "different"


def _graded(distance: float, near: float, far: float) -> float:
    # At `near` the power is 1/2 and at `far` 2, so that the similarities there are 2/3 and 1/3.
    steepness = math.log(4) / math.log(far / near)
    return 1 / (1 + (distance / math.sqrt(near * far)) ** steepness)
