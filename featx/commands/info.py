"""Show what a store, a classifier or an index holds, and how it was made."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from featx.commands.options import add_json_argument
from featx.commands.tables import count, format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore

_MAX_SHOWN = 12  # names in a line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx info``."""
    parser.add_argument("file", metavar="FILE", help="F.h5, C.featx or F.index")
    parser.add_argument("--failures", action="store_true", help="list every image that could not be read (of a store)")
    add_json_argument(parser)


def run(*, file: str, failures: bool, as_json: bool) -> int:
    """Print a description of one file."""
    from featx.workflows.file_kinds import CLASSIFIER, INDEX, STORE, kind_of, require_kind

    kind = kind_of(file)
    if failures and kind in (CLASSIFIER, INDEX):
        raise UsageError(f"--failures goes with a store (.h5); {file} is another kind of file: leave it out")
    if kind == CLASSIFIER:
        described = _describe_bundle(file)
        text = _bundle_text
    elif kind == INDEX:
        described = _describe_index(file)
        text = _index_text
    else:
        require_kind(file, STORE)
        described = _describe_store(file)
        text = _failures_text if failures else _store_text
    print(json.dumps(described) if as_json else text(described))
    return 0


def _describe_store(file: str) -> dict[str, Any]:
    from featx.images import SPLIT_NAMES
    from featx.store import FeatureStore

    with FeatureStore(file) as store:
        splits = Counter(SPLIT_NAMES[split] if split >= 0 else "(none)" for split in store.splits.tolist())
        return {
            "path": file,
            "rows": store.rows,
            "source": store.source,
            "labels": _label_counts(store),
            "splits": dict(sorted(splits.items())),
            "features": [
                {
                    "key": info.key,
                    "width": info.width,
                    "dtype": info.dtype,
                    "codec": info.codec,
                    "reducer": store.reducers.get(info.key, ""),
                    "depth": info.depth,
                    "map_shape": list(info.map_shape),
                }
                for info in store.infos.values()
            ],
            "maps": [
                {
                    "layer": info.layer,
                    "shape": list(info.shape),
                    "dtype": info.dtype,
                    "bytes_per_image": info.bytes_per_image,
                }
                for info in store.maps.values()
            ],
            "aliases": dict(store.aliases),
            "failures": [{"path": path, "reason": reason} for path, reason in store.failures],
            "fingerprint": dict(store.fingerprint),
        }


def _label_counts(store: FeatureStore) -> dict[str, int]:
    names = store.label_names
    counts = Counter(names[label] if label >= 0 else "(none)" for label in store.labels.tolist())
    return dict(sorted(counts.items()))


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
        "search": _how_it_searches(index),
        "embedding": index.embedding.to_parts()[0],
        **index.metadata,
    }


def _how_it_searches(index: ImageIndex) -> str:
    tuning = index.tuning
    if tuning is None or index.structure is None:
        return "exact search by cosine similarity"
    chosen = tuning.chosen
    low, high = chosen.interval
    return (
        f"search by {chosen.factory} ({chosen.parameters}): recall@{tuning.wish.k} {chosen.recall:.3f}"
        f" ({low:.3f} to {high:.3f}) when it was built"
    )


def _store_text(described: Mapping[str, Any]) -> str:
    rows = [
        (info["key"], info["width"], _stored_as(info), f"{info['depth']:.0%}", "x".join(map(str, info["map_shape"])))
        for info in described["features"]
    ]
    aliases = [f"{alias} = {layer}" for alias, layer in described["aliases"].items()]
    failures = described["failures"]
    lines = [
        f"{described['path']}: {count(described['rows'], 'row')} from {described['source']}",
        "labels: " + _shortened(f"{name} {number}" for name, number in described["labels"].items()),
        "splits: " + ", ".join(f"{name} {number}" for name, number in described["splits"].items()),
        *_network_lines(described["fingerprint"]),
        *_reduction_lines(described["fingerprint"]),
        format_table(("features", "width", "dtype", "depth", "layer's output"), rows, left=(0, 2)),
        *(_map_text(kept) for kept in described["maps"]),
        *(["aliases: " + ", ".join(aliases)] if aliases else []),
        f"failures: {len(failures)}" + (" (list them with --failures)" if failures else ""),
    ]
    return "\n".join(lines)


def _map_text(kept: Mapping[str, Any]) -> str:
    from featx.store import MapInfo

    return str(MapInfo(kept["layer"], tuple(kept["shape"]), kept["dtype"]))


def _failures_text(described: Mapping[str, Any]) -> str:
    lines = [f"{failure['path']}: {failure['reason']}" for failure in described["failures"]]
    return "\n".join(lines) or "no failures"


def _bundle_text(described: Mapping[str, Any]) -> str:
    features, card = described["features"], described["card"]
    params = ", ".join(f"{name} {value}" for name, value in card.get("params", {}).items()) or "no parameters"
    kept = "inside this file" if described["embedded_weights"] else "not in this file"
    lines = [
        f"{described['path']}: classifier of {count(len(described['classes']), 'class')}:"
        f" {_shortened(described['classes'])}",
        f"features: {features['key']} ({features['width']} wide)",
        *_network_lines(features["fingerprint"]),
        f"weights of the network: {kept}",
        f"head: {card.get('head')}, scaled by {card.get('scale')}, reduced by {card.get('reduce')}: {params}",
        f"learned from {count(card.get('rows_learned_from', 0), 'row')} of {card.get('source')}",
        *_score_lines(card),
        *(f"note: {note}" for note in card.get("notes", ())),
    ]
    return "\n".join(lines)


def _score_lines(card: Mapping[str, Any]) -> list[str]:
    scored = card.get("evaluation")
    if not scored:
        return []
    low, high = scored["interval"]
    refitted = "; fitted again on all rows afterwards" if card.get("rows_scored_were_learned_from_afterwards") else ""
    return [
        f"accuracy {scored['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, on {count(scored['rows'], 'row')}"
        f" never seen ({scored['on']}){refitted}",
        f"always answering {scored['majority_class']!r} would give {scored['majority_accuracy']:.3f}",
    ]


def _index_text(described: Mapping[str, Any]) -> str:
    features = described.get("features")
    lines = [
        f"{described['path']}: {count(described['rows'], 'image')} from {described.get('source')}",
        f"vectors: {described['width']} wide{_embedding_text(described['embedding'])}",
        described["search"],
        f"thumbnails: {'yes' if described['thumbnails'] else 'no'}",
        *([f"places: of {described['places']['layer']}"] if "places" in described else []),
    ]
    if features:
        lines += [
            f"features: {features['key']}",
            *_network_lines(features["fingerprint"]),
            *_reduction_lines(described),
        ]
    return "\n".join(lines)


def _embedding_text(embedding: Mapping[str, Any]) -> str:
    weights = embedding["weights"]
    joined = f", layers weighed {', '.join(f'{weight:g}' for weight in weights)}" if len(weights) > 1 else ""
    return joined + (f", whitened to {embedding['whiten']}" if embedding["whiten"] else "")


def _network_lines(made: Mapping[str, Any]) -> list[str]:
    return [
        f"network: {made.get('model')}, weights {made.get('weights')} ({made.get('weights_source')})",
        f"precision: {made.get('precision')}, engine {made.get('engine')}, decoder {made.get('decoder')}",
        f"transform: {json.dumps(made.get('transform'))}",
    ]


def _stored_as(info: Mapping[str, Any]) -> str:
    return f"{info['dtype']} ({info['codec']} codes)" if info["codec"] else info["dtype"]


def _reduction_lines(made: Mapping[str, Any]) -> list[str]:
    reduction = made.get("reduction")
    if not isinstance(reduction, dict):
        return []
    seed = f", seed {reduction['seed']}" if "seed" in reduction else ""
    rows = count(reduction.get("rows", 0), "row")
    return [f"reduced by: {reduction.get('by')}, fitted on {rows} ({reduction.get('on')}){seed}"]


def _shortened(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", … {len(listed) - _MAX_SHOWN} more" if len(listed) > _MAX_SHOWN else ""
    return ", ".join(listed[:_MAX_SHOWN]) + more
