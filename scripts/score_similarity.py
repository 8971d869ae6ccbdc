"""Similarity of the development sets to the source of several networks, with several numbers of images.

python scripts/score_similarity.py ../shared/data --weights ../shared/weights --images 8,16,32,64,96

Sets the constants of featx/advice/calibration.py. With --blur 32 each picture is first made that small, to see what
enlarging small pictures does by itself. Networks whose weights are not on this machine are left out.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.advice.similarity import Similarity, measure_similarity
from featx.advice.statistics_shift import total_shift
from featx.backbones import Backbone, open_backbone
from featx.errors import WeightsNotFoundError
from featx.extraction.memory_entries import DecodedPicture
from featx.images import list_images

NETWORKS = {
    "tf_efficientnet_lite0": None,
    "tf_efficientnet_lite1": None,
    "tf_efficientnet_lite2": None,
    "mobilenetv2_100": "mobilenetv2_100.timm.safetensors",
    "torchvision:squeezenet1_1": "squeezenet1_1.torchvision.safetensors",
}
SETS = (
    "caltech_10",
    "pets3_180",
    "ucmerced_10",
    "cacao_360",
    "emoji_third",
    "cifar10_5k",
    "omniglot_121",
    "bccd_cells_600",
)


@dataclass(frozen=True)
class Shrunk:
    """An image made so small that its shorter edge has `edge` pixels."""

    entry: Any
    edge: int

    @property
    def path(self) -> str:
        """Name of the image."""
        return self.entry.path

    def read(self) -> DecodedPicture:
        """Return the small picture."""
        encoded = self.entry.read()
        picture = encoded.decode()
        scale = self.edge / min(picture.size)
        return DecodedPicture(encoded.digest, picture.resize([max(1, round(scale * side)) for side in picture.size]))


def main() -> int:
    """Print a row a network, set and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("../shared/weights"))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--images", default="96")
    parser.add_argument("--blur", type=int, metavar="PIXELS")
    arguments = parser.parse_args()
    print("| network | set | images | shift | similarity | 95 % | verdict | confidence | entropy | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for network in arguments.networks.split(","):
        backbone = opened(network, arguments.weights)
        if backbone is None:
            print(f"{network}: no weights on this machine", file=sys.stderr)
            continue
        for name in arguments.sets.split(","):
            entries: Any = list_images(arguments.root / name).entries
            if arguments.blur:
                entries = [Shrunk(entry, arguments.blur) for entry in entries]
            for n_images in map(int, arguments.images.split(",")):
                started = time.perf_counter()
                found = measure_similarity(backbone, entries, n_images=n_images)
                print(row(network, name, found, time.perf_counter() - started), flush=True)
    return 0


def opened(network: str, weights: Path) -> Backbone | None:
    """Return a network, or None where its weights are not on this machine."""
    file = NETWORKS.get(network)
    try:
        return open_backbone(network, weights=str(weights / file) if file else None, download=False)
    except WeightsNotFoundError:
        return None


def row(network: str, name: str, found: Similarity, seconds: float) -> str:
    """Return one measurement as a line of a Markdown table."""
    shift = f"{total_shift(found.by_depth):.3f}" if found.by_depth else "–"
    value = "–" if found.value is None else f"{found.value:.2f}"
    interval = "–" if found.interval is None else f"{found.interval[0]:.2f}–{found.interval[1]:.2f}"
    classifier = found.classifier
    sure = f"{classifier.mean_confidence:.2f} | {classifier.mean_entropy:.2f}" if classifier else "– | –"
    cells = [network, name, found.n_images, shift, value, interval, found.verdict, sure, f"{seconds:.1f}"]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
