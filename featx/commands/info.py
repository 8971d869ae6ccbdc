"""Show what a store, a classifier or an index holds, and how it was made."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from featx.commands.options import add_json_argument
from featx.commands.tables import format_table

if TYPE_CHECKING:
    import argparse

    from featx.store import FeatureStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx info``."""
    parser.add_argument("file", metavar="FILE", help="F.h5, C.featx or F.index")
    parser.add_argument("--failures", action="store_true", help="list every image that could not be read")
    add_json_argument(parser)


def run(*, file: str, failures: bool, as_json: bool) -> int:
    """Print a description of one file."""
    from pathlib import Path

    suffix = Path(file).suffix
    if suffix == ".featx":
        described = _describe_bundle(file)
    elif suffix == ".index":
        described = _describe_index(file)
    else:
        from featx.store import FeatureStore

        with FeatureStore(file) as store:
            described = _describe_store(store)
            if failures and not as_json:
                print("\n".join(f"{path}: {reason}" for path, reason in store.failures) or "no failures")
                return 0
            if not as_json:
                print(_store_text(store, described))
                return 0
    print(json.dumps(described) if as_json else json.dumps(described, indent=2, ensure_ascii=False))
    return 0


def _describe_store(store: FeatureStore) -> dict[str, Any]:
    from featx.images import SPLIT_NAMES

    names = store.label_names
    labels = Counter(names[label] if label >= 0 else "(none)" for label in store.labels.tolist())
    splits = Counter(SPLIT_NAMES[split] if split >= 0 else "(none)" for split in store.splits.tolist())
    return {
        "path": str(store.path),
        "rows": store.rows,
        "source": store.source,
        "labels": dict(sorted(labels.items())),
        "splits": dict(sorted(splits.items())),
        "features": [
            {
                "key": info.key,
                "width": info.width,
                "dtype": info.dtype,
                "depth": info.depth,
                "map_shape": list(info.map_shape),
            }
            for info in store.infos.values()
        ],
        "aliases": dict(store.aliases),
        "failures": [{"path": path, "reason": reason} for path, reason in store.failures],
        "fingerprint": dict(store.fingerprint),
    }


def _store_text(store: FeatureStore, described: dict[str, Any]) -> str:
    made = described["fingerprint"]
    counts = described["labels"]
    shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:12])
    more = f", … {len(counts) - 12} more" if len(counts) > 12 else ""
    rows = [
        (info.key, info.width, info.dtype, f"{info.depth:.0%}", "x".join(map(str, info.map_shape)))
        for info in store.infos.values()
    ]
    aliases = [f"{alias} = {layer}" for alias, layer in described["aliases"].items()]
    lines = [
        f"{described['path']}: {described['rows']} rows from {described['source']}",
        f"labels: {shown}{more}",
        "splits: " + ", ".join(f"{name} {count}" for name, count in described["splits"].items()),
        f"network: {made.get('model')}, weights {made.get('weights')} ({made.get('weights_source')})",
        f"precision: {made.get('precision')}, engine {made.get('engine')}, decoder {made.get('decoder')}",
        f"transform: {json.dumps(made.get('transform'))}",
        format_table(("features", "width", "dtype", "depth", "layer's output"), rows, left=(0, 2)),
        *(["aliases: " + ", ".join(aliases)] if aliases else []),
        f"failures: {len(described['failures'])}" + (" (list them with --failures)" if described["failures"] else ""),
    ]
    return "\n".join(lines)


def _describe_bundle(file: str) -> dict[str, Any]:
    from featx.bundle import load_bundle

    bundle = load_bundle(file)
    return {
        "path": file,
        "features": bundle.spec.to_json(),
        "classes": list(bundle.class_names),
        "card": dict(bundle.card),
        "embedded_weights": bundle.weights is not None,
    }


def _describe_index(file: str) -> dict[str, Any]:
    from featx.retrieval import ImageIndex

    index = ImageIndex.load(file)
    return {
        "path": file,
        "rows": len(index),
        "width": index.width,
        "thumbnails": any(index.thumbnail(row) for row in range(min(len(index), 1000))),
        **index.metadata,
    }
