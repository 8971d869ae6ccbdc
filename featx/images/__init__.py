"""From a source of images to RGB pixels of the size that a network takes.

``list_images`` gives an ``ImageListing`` in a fixed order; each ``ImageEntry`` is read into an ``EncodedImage``
(digest and bytes), which decodes to an RGB picture; ``resize_and_crop`` makes the network's input of it, and
``view_pixels`` several inputs. No part of
this needs torch, and every function may be called from many threads at once.
"""

from featx.images.decoding import DECODER, FORMATS, EncodedImage, image_extensions
from featx.images.entries import NO_SPLIT, SPLIT_NAMES, TEST, TRAIN, VAL, ImageEntry, ImageListing
from featx.images.geometry import CROP_MODES, INTERPOLATIONS, resize_and_crop
from featx.images.hashing import perceptual_hash
from featx.images.manifests import read_column
from featx.images.sources import list_images
from featx.images.stored_paths import escape_path, unescape_path
from featx.images.views import VIEWS, VIEWS_IN_WORDS, View, view_box, view_pixels, views_of

__all__ = [
    "CROP_MODES",
    "DECODER",
    "FORMATS",
    "INTERPOLATIONS",
    "NO_SPLIT",
    "SPLIT_NAMES",
    "TEST",
    "TRAIN",
    "VAL",
    "VIEWS",
    "VIEWS_IN_WORDS",
    "EncodedImage",
    "ImageEntry",
    "ImageListing",
    "View",
    "escape_path",
    "image_extensions",
    "list_images",
    "perceptual_hash",
    "read_column",
    "resize_and_crop",
    "unescape_path",
    "view_box",
    "view_pixels",
    "views_of",
]
