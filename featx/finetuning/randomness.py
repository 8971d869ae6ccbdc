"""Random numbers that depend on a seed and a place in the training, and on nothing that happened before.

torchvision's, timm's and torch's own random steps draw from generators of the whole process. Seeding them anew for
each image and each step, and giving them back as they were, makes a run repeatable, lets a resumed run go on where the
killed one stopped, and leaves the caller's random numbers alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*key: int) -> int:
    """Return a seed of 32 bits that stands for several whole numbers of 0 or more, in their order."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


@contextmanager
def seeded(*key: int, device: str = "cpu") -> Iterator[None]:
    """Let Python's, NumPy's and torch's generators begin at a seed inside the block, and be as before after it.

    Parameters
    ----------
    *key : int
        Whole numbers of 0 or more that stand for the place, such as seed, epoch and step.
    device : str
        A torch device, whose generator counts too.
    """
    seed = seed_of(*key)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - timm's mixup draws from it
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - as above
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002 - as above
