"""Networks whose weights came from a file that is no longer where it was."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from featx.errors import WeightsNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.extraction import FeatureSpec


@contextmanager
def moved_weights_explained(spec: FeatureSpec, weights: str | None, advice: str = "") -> Iterator[None]:
    """Turn "no such file" into a request for the place where the weights of some features are now.

    Parameters
    ----------
    spec : FeatureSpec
        The features that are being opened inside the ``with`` block.
    weights : str or None
        What the user named as their weights; what is wrong with that is said by whoever reads it.
    advice : str
        What else would have helped, added to the message.

    Raises
    ------
    WeightsNotFoundError
        Inside the block, the file that the features were made with was not found.
    """
    try:
        yield
    except WeightsNotFoundError as error:
        source = str(spec.fingerprint.get("weights_source", ""))
        if weights is not None or not source.startswith("file:"):
            raise
        file = source.removeprefix("file:")
        where = "" if os.path.isabs(file) else f" (seen from {os.getcwd()})"
        raise WeightsNotFoundError(
            f"the features were made with the weights in {file}, which is not there any more{where};"
            f" say where they are now with --weights FILE{advice}"
        ) from error
