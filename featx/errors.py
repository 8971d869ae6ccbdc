"""Every error that featx raises on purpose, and the exit code that each one gives on the command line.

::

    FeatxError                            2
    ├── UsageError (ValueError)           2   an option or argument that makes no sense
    ├── SourceError (ValueError)          2   a source of images that cannot be listed
    ├── ImageError (OSError)              2   one image that cannot be read; extraction keeps a ledger of them
    ├── BackboneError (ValueError)        2   a network that is unknown or cannot be opened
    │   ├── WeightsNotFoundError          2   no weights in any of the places tried
    │   ├── LayerError                    2   a layer or pooling that the network does not have
    │   └── EngineError                   2   a device, engine or precision that this machine cannot run
    ├── StoreError (OSError)              2   a store that is missing, damaged, incomplete or of another format
    │   └── FeatureKeyError (KeyError)    2   features that the store does not hold, or an ambiguous name
    ├── HeadError (ValueError)            2   labels or features that a classifier cannot be fitted on
    ├── TuningError (ArithmeticError)     2   a training that came to nothing
    └── RefusedError                      3   could be done, but would harm or mislead
        ├── FingerprintMismatchError (ValueError)   3   features made in another way
        ├── UnsafeFileError (ValueError)            3   a file that asks for more than data
        └── WouldOverwriteError (FileExistsError)   3   a result that is already there

Each message says what was given, what is allowed or was found, and what to do.
"""


class FeatxError(Exception):
    """Root of all errors that featx raises on purpose."""

    exit_code = 2

    def __str__(self) -> str:
        # KeyError would show the repr of its message, OSError may show an errno.
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(FeatxError, ValueError):
    """An option or argument that makes no sense."""


class SourceError(FeatxError, ValueError):
    """A source of images that cannot be listed."""


class ImageError(FeatxError, OSError):
    """One image that cannot be read or decoded."""


class BackboneError(FeatxError, ValueError):
    """A network that is unknown or cannot be opened."""


class WeightsNotFoundError(BackboneError):
    """No weights for a network in any of the places tried."""


class LayerError(BackboneError):
    """A layer or pooling that the network does not have."""


class EngineError(BackboneError):
    """A device, engine or precision that this machine cannot run."""


class StoreError(FeatxError, OSError):
    """A store that is missing, damaged, incomplete or of another format."""


class FeatureKeyError(StoreError, KeyError):
    """Features that the store does not hold, or a name that fits several."""


class HeadError(FeatxError, ValueError):
    """Labels or features that a classifier cannot be fitted on."""


class TuningError(FeatxError, ArithmeticError):
    """A training that came to nothing."""


class RefusedError(FeatxError):
    """Something that could be done, but would harm or mislead."""

    exit_code = 3


class FingerprintMismatchError(RefusedError, ValueError):
    """Features that were made in another way than the ones they meet."""


class UnsafeFileError(RefusedError, ValueError):
    """A file that asks for more than data."""


class WouldOverwriteError(RefusedError, FileExistsError):
    """A result that is already there."""
