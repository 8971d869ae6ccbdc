"""Show which images of a store are copies of each other, or nearly.

A group is exact where all its files are the same byte for byte. Likeness is that to the first image of the group.
Groups that cross splits, or whose labels differ, are marked: a score would count what has been learned by heart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from featx.commands.options import add_json_argument
from featx.commands.outputs import check_apart, check_output, make_folder_of
from featx.commands.tables import count, format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.store import FeatureStore
    from featx.workflows.duplicates import DuplicateGroup, Duplicates

_DEFAULT_LIKENESS = 0.8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx duplicates``."""
    parser.add_argument("store", metavar="F.h5", help="store from featx extract")
    parser.add_argument(
        "--min-likeness", type=float, metavar="NUMBER",
        help="how like near-duplicates must be: cosine of late features less the share of differing bits of their"
        f" perceptual hashes (default: {_DEFAULT_LIKENESS})",
    )  # fmt: skip
    parser.add_argument("--exact-only", action="store_true", help="look for identical files only")
    parser.add_argument("--csv", metavar="FILE", help="save the table as .csv")
    parser.add_argument("--html", metavar="FILE", help="save a page with the pictures of each group")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --csv and --html")
    add_json_argument(parser)


def run(
    *,
    store: str,
    min_likeness: float | None,
    exact_only: bool,
    csv: str | None,
    html: str | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Find, print and save groups of duplicates."""
    from featx.workflows.result_pages import check_page_name

    if exact_only and min_likeness is not None:
        raise UsageError("--min-likeness says what is near, and --exact-only leaves that out; give one of them")
    least = _DEFAULT_LIKENESS if min_likeness is None else min_likeness
    if not 0 < least <= 1:
        raise UsageError(f"--min-likeness {least} is not above 0 and at most 1; leave it out for {_DEFAULT_LIKENESS}")
    for option, file in (("--csv", csv), ("--html", html)):
        if file is not None:
            check_output(file, store, overwrite=overwrite, option=option)
    if html is not None:
        check_page_name(html)
    check_apart({option: Path(file) for option, file in (("--csv", csv), ("--html", html)) if file is not None}, [])

    from featx.store import FeatureStore
    from featx.workflows.duplicates import find_duplicates
    from featx.workflows.file_kinds import STORE, require_kind

    require_kind(store, STORE)
    with FeatureStore(store) as opened:
        found = find_duplicates(opened, min_likeness=least, exact_only=exact_only)
        _save(opened, found, csv, html)
    if as_json:
        for group in found.groups:
            print(json.dumps(_as_json(group)))
    else:
        print(_report(found), *(f"saved {file}" for file in (csv, html) if file), sep="\n")
    return 0


def _save(store: FeatureStore, found: Duplicates, csv: str | None, html: str | None) -> None:
    """Write what was asked for; that it may be overwritten has been seen to."""
    from featx.workflows.duplicates import page_rows, write_table
    from featx.workflows.result_pages import write_results_page

    if csv is not None:
        make_folder_of(Path(csv))
        write_table(found, csv, overwrite=True)
    if html is not None:
        make_folder_of(Path(html))
        facts = {
            "Store": Path(store.path).name,  # the page may be passed on: folders are nobody else's business
            "Images": f"{found.n_rows:,}",
            "Groups": f"{len(found.groups):,}",
            "Could be dropped": f"{found.n_droppable:,}",
            "Compared by": found.compared_by,
        }
        write_results_page(html, page_rows(store, found), title="Duplicates", facts=facts, overwrite=True)


def _as_json(group: DuplicateGroup) -> dict[str, object]:
    images = [
        {
            "path": image.path,
            "label": image.label,
            "split": image.split,
            "likeness": None if image.likeness is None else round(image.likeness, 6),
        }
        for image in group.images
    ]
    return {"group": group.number, "kind": group.kind, "images": images}


def _report(found: Duplicates) -> str:
    lines = [_summary(found), f"compared by: {found.compared_by}", *_warnings(found)]
    rows = [
        (
            group.number,
            group.kind,
            "-" if image.likeness is None else f"{image.likeness:.4f}",
            image.path,
            image.label or "-",
            image.split or "-",
            "" if place else "; ".join(group.concerns),
        )
        for group in found.groups
        for place, image in enumerate(group.images)
    ]
    header = ("group", "kind", "likeness", "path", "label", "split", "look at")
    return "\n".join([*lines, *([format_table(header, rows, left=(1, 3, 4, 5, 6))] if rows else [])])


def _summary(found: Duplicates) -> str:
    images = count(found.n_rows, "image")
    if not found.groups:
        return f"no duplicates among {images}"
    near = sum(group.kind == "near" for group in found.groups)
    copies = "exact copy" if found.n_identical == 1 else "exact copies"
    return (
        f"{found.n_identical} {copies} and {count(near, 'near group')} in {count(len(found.groups), 'group')} among"
        f" {images}; {count(found.n_droppable, 'image')} could be dropped"
    )


def _warnings(found: Duplicates) -> list[str]:
    crossing = sum(len(group.splits) > 1 for group in found.groups)
    differing = sum(len(group.labels) > 1 for group in found.groups)
    notes = [
        f"note: {count(crossing, 'group')} {'crosses' if crossing == 1 else 'cross'} splits" if crossing else "",
        f"note: in {count(differing, 'group')} the labels differ" if differing else "",
        f"note: {count(found.n_split_up, 'group')} of pictures that are all alike grew too large to be copies of one;"
        " only their nearest images were kept together"
        if found.n_split_up
        else "",
    ]
    return [note for note in notes if note]
