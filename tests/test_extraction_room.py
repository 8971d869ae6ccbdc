"""The room's door: what it shows, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import featx.extraction

ROOT = Path(featx.__file__).parents[1]


def test_every_public_name_is_there():
    """All names of the room resolve, and an unknown one is answered with the list."""
    for name in featx.extraction.__all__:
        assert getattr(featx.extraction, name) is not None
    assert featx.extraction.FeatureExtractor.__module__ == "featx.extraction.feature_extractor"
    with pytest.raises(AttributeError, match=r"no attribute 'Extractor'; public names: .*FeatureExtractor"):
        featx.extraction.Extractor  # noqa: B018


def test_an_extraction_does_not_load_scikit_learn():
    """Commands that extract do not wait for scikit-learn, nor for FAISS."""
    code = "import sys, featx.extraction; print(sorted({'sklearn', 'scipy', 'faiss', 'openvino'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
