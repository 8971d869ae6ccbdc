"""``import featx`` and ``featx --help`` are quick, and the public names are a fixed list."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import featx

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1])}
HEAVY = ("torch", "torchvision", "timm", "faiss", "sklearn", "openvino", "h5py", "scipy", "skops", "PIL", "numpy")
HEAVY += ("matplotlib",)
SECONDS_ALLOWED = 0.5

PUBLIC = [
    "Bundle",
    "FeatureExtractor",
    "FeatureStore",
    "FeatxError",
    "ImageIndex",
    "ProductQuantizer",
    "StreamingPCA",
    "TransformSpec",
    "compare",
    "list_images",
    "load_bundle",
    "open_backbone",
]


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=120
    )


def loaded_by(code):
    """Return which of the heavy packages a fresh interpreter has loaded after some code."""
    shown = python("-c", f"import sys\n{code}\nprint()\nprint(*sys.modules)")
    return set(HEAVY) & set(shown.stdout.splitlines()[-1].split())


def test_help_answers_in_half_a_second():
    """``featx --help`` takes less than half a second, start of Python included; the best of three counts."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert "usage: featx" in python("-m", "featx", "--help").stdout
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < SECONDS_ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import featx",
        "import featx; dir(featx); featx.FeatxError",
        "from featx.commands.command_line import main; main(['--help'])",
        "from featx.commands.command_line import main; main(['extract', '--help'])",
        "from featx.commands.command_line import main; main(['nonsense'])",
        "from featx.commands.command_line import main; main(['fit-svm', 'f.h5'])",
    ],
)
def test_starting_loads_nothing_heavy(code):
    """Neither the import nor help nor bad usage loads torch, faiss or anything else that takes time."""
    assert loaded_by(code) == set()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["extract", "nowhere", "--out", "f.h5"], 2),
        (["predict"], 2),
        (["predict", "c.featx", "{empty}"], 2),
        (["query", "f.index", "{empty}"], 2),
    ],
)
def test_wrong_paths_do_not_wait_for_torch(arguments, code, tmp_path):
    """A source that is not there, or holds no image, is answered before torch is loaded."""
    arguments = [argument.format(empty=tmp_path) for argument in arguments]
    source = f"from featx.commands.command_line import main; assert main({arguments!r}) == {code}"
    assert loaded_by(source) & {"torch", "timm", "sklearn", "openvino", "faiss"} == set()


def test_the_check_sees_what_is_loaded():
    """A public name that needs torch loads it when it is first used, and the check above notices."""
    assert "torch" in loaded_by("import featx; featx.open_backbone")


def test_public_names():
    """``__all__`` is the agreed list, sorted, and every name in it resolves to what a room gives out."""
    assert featx.__all__ == PUBLIC == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(featx, name).__name__ == name
        assert getattr(featx, name).__module__.startswith("featx.")
        assert name in dir(featx)


def test_an_unknown_name_lists_the_public_ones():
    """A name that does not exist is an AttributeError with the names that do."""
    with pytest.raises(AttributeError, match=r"no attribute 'FeatureStor'; public names: Bundle, FeatureExtractor"):
        _ = featx.FeatureStor
    assert not hasattr(featx, "torch")
