"""How an index has changed since it was built, and when it should be built again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# Where advice begins. A structure that keeps vectors of another kind keeps less of them: a quarter more distortion
# costs about as much recall as a step of nprobe brings.
_MOST_DISTORTION = 1.25
_MOST_ADDED = 1.0  # new images for each that the structure learned from
_MOST_REMOVED = 0.2  # of all places


@dataclass(frozen=True)
class Growth:
    """Images added to and removed from an index.

    Attributes
    ----------
    n_built : int
        Images that the index was built from.
    distortion : float or None
        Mean squared distance of their vectors from what the structure keeps of them; None where it learns nothing.
    n_added, n_removed : int
        Since then.
    added_distortion : float or None
        The same distance for the images added.
    """

    n_built: int
    distortion: float | None = None
    n_added: int = 0
    added_distortion: float | None = None
    n_removed: int = 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Growth:
        """Return the growth that ``dataclasses.asdict`` took apart.

        Raises
        ------
        TypeError, ValueError
            The values are of other kinds.
        """
        growth = cls(**values)
        counts = (growth.n_built, growth.n_added, growth.n_removed)
        distances = (growth.distortion, growth.added_distortion)
        if not all(type(count) is int and count >= 0 for count in counts) or not all(
            distance is None or isinstance(distance, float) for distance in distances
        ):
            raise ValueError("growth is not made of numbers")
        return growth

    def with_added(self, number: int, distortion: float | None) -> Growth:
        """Return the growth after some more images, of a mean distortion of their own."""
        mean = distortion
        if distortion is not None and self.added_distortion is not None:
            mean = (self.n_added * self.added_distortion + number * distortion) / (self.n_added + number)
        return replace(self, n_added=self.n_added + number, added_distortion=mean)

    def with_removed(self, number: int) -> Growth:
        """Return the growth after some images were removed."""
        return replace(self, n_removed=self.n_removed + number)

    def advice(self, *, learns: bool = True, keeps_places: bool = True) -> str:
        """Return why the index should be built again; empty where it need not be.

        Parameters
        ----------
        learns : bool
            Whether anything in it was learned from the images that it was built from: a structure, a whitening.
        keeps_places : bool
            Whether removed images go on taking room.
        """
        reasons = []
        if self.distortion and self.added_distortion and self.added_distortion > _MOST_DISTORTION * self.distortion:
            ratio = self.added_distortion / self.distortion
            reasons.append(f"the images added are unlike those it was built from (distortion {ratio:.2f} times)")
        if learns and self.n_added > _MOST_ADDED * self.n_built:
            reasons.append(f"{self.n_added} images were added to {self.n_built}")
        if keeps_places and self.n_removed > _MOST_REMOVED * (self.n_built + self.n_added):
            reasons.append(f"{self.n_removed} of {self.n_built + self.n_added} were removed, whose places stay taken")
        return f"build the index again: {', and '.join(reasons)}" if reasons else ""
