"""How much of what a network knew is still there after it was tuned."""

from __future__ import annotations

import numpy as np


def linear_cka(before: np.ndarray, after: np.ndarray) -> float:
    """Return the linear centred kernel alignment of two sets of features of the same images, 0 to 1.

    It is 1 where the features differ by a rotation and a common factor only, and near 0 where they have nothing in
    common.

    Parameters
    ----------
    before, after : ndarray of shape (n, d1) and (n, d2)
        Features of the same images by the pretrained and by the tuned network.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee, G. Hinton: Similarity of Neural Network Representations Revisited. ICML 2019.
    """
    x = np.asarray(before, np.float64) - np.mean(before, axis=0, dtype=np.float64)
    y = np.asarray(after, np.float64) - np.mean(after, axis=0, dtype=np.float64)
    # n images are fewer than d features, as a rule: kernels of n x n are the smaller ones.
    kernel_x, kernel_y = x @ x.T, y @ y.T
    norm = np.linalg.norm(kernel_x) * np.linalg.norm(kernel_y)
    return float((kernel_x * kernel_y).sum() / norm) if norm > 0 else 0.0
