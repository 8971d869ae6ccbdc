"""Say which road of transfer to take with a set of images, from what is measured of them.

SOURCE is a folder, list or CSV as in featx extract: features of all stages are extracted into a store first, which the
commands that are advised then use. F.h5 is such a store; up to 96 of its images are looked at again.

Measured are size (images a class, balance, copies), similarity to what the network was trained on (0 to 1, without its
images) and what each layer is good for, on training images alone. The page has the curves.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.commands.advice_report import describe_advice
from featx.commands.advised_commands import advised_commands
from featx.commands.failures import print_failures
from featx.commands.options import (
    add_compute_arguments,
    add_json_argument,
    add_split_arguments,
    check_row_arguments,
    compute_options,
    typed_row_options,
)
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.progress import ProgressBar, StepBar
from featx.commands.tables import count
from featx.errors import FeatxError, UsageError, WouldOverwriteError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from featx.extraction import Extraction, ExtractionReport
    from featx.store import FeatureStore
    from featx.workflows.advising import AdviceReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx advise``."""
    parser.add_argument("source", metavar="SOURCE", help="images, or a store F.h5 of their features")
    parser.add_argument("--store", metavar="FILE", help="where features of SOURCE go (default: its name and .h5, here)")
    page = parser.add_argument_group("the page")
    page.add_argument("--html", metavar="FILE", help="where the page goes (default: F.advice.html beside the store)")
    page.add_argument("--no-html", action="store_true", help="write no page")
    page.add_argument("--overwrite", action="store_true", help="replace what is at --html, whatever it is")
    network = parser.add_argument_group("which network, for a SOURCE")
    network.add_argument("--model", metavar="NAME", help="network (default: tf_efficientnet_lite0)")
    network.add_argument(
        "--weights", metavar="FILE",
        help="weights file, or random:SEED (default: looked for); for a store, where its weights are now",
    )  # fmt: skip
    network.add_argument("--size", type=int, metavar="N", help="pictures of N x N pixels (default: the network's own)")
    add_split_arguments(parser)
    parser.add_argument("--allow-random", action="store_true", help="accept features of untrained weights")
    add_compute_arguments(parser)
    add_json_argument(parser)


def run(
    *,
    source: str,
    store: str | None,
    html: str | None,
    no_html: bool,
    overwrite: bool,
    model: str | None,
    weights: str | None,
    size: int | None,
    seed: int,
    held_out: float,
    group_column: str | None,
    allow_duplicates: bool,
    allow_random: bool,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Extract where there are images, measure, and print the advice."""
    from featx.workflows.file_kinds import STORE, kind_of

    check_row_arguments(seed=seed, held_out=held_out, jobs=None)
    if html is not None and no_html:
        raise UsageError("--html says where the page goes, and --no-html that there is none; give one of them")
    is_store = kind_of(source) == STORE
    if is_store:
        _check_store_arguments(source, store, model, size)
    file = _store_file(source, store, is_store)
    page = None if no_html else _page_file(file, html, overwrite)

    extraction, extracted = None, None
    if not is_store:
        options = compute_options(engine, device, batch_size, workers)
        network: dict[str, Any] = {"model": model, "weights": weights, "size": size, "allow_random": allow_random}
        extraction, extracted = _extract(source, file, is_quiet=as_json, options=options, **network)
    rows: dict[str, Any] = {
        "seed": seed, "held_out": held_out, "group_column": group_column, "allow_duplicates": allow_duplicates,
    }  # fmt: skip
    report, adding, refusal = _advise(file, extraction, weights=weights, allow_random=allow_random, **rows)
    fits = ["--allow-random"] if allow_random else []
    typed = typed_row_options(balanced=False, allow_random=False, **rows)
    trainings = [] if weights is None else [f"--weights {shlex.quote(weights)}"]
    commands = advised_commands(
        report, file, extract=adding, rows=typed, fits=fits, trainings=None if refusal else trainings
    )
    if page is not None:
        _save_page(page, report, file, commands, overwrite)
    if as_json:
        print(json.dumps({**_as_json(report, file, page, commands), "no_fine_tuning": refusal}))
    else:
        untrainable = [f"note: no command trains the network, since {refusal}"] if refusal else []
        print(describe_advice(report, commands), *untrainable, *([f"saved {page}"] if page else []), sep="\n")
    print_failures([] if extracted is None else extracted.failures, file)
    return 1 if extracted is not None and extracted.failures else 0


def _advise(file: str, extraction: Extraction | None, **settings: Any) -> tuple[AdviceReport, str, str | None]:
    """Return the advice, the command that adds layers to the store, and why no network can be tuned on its images."""
    from featx.store import FeatureStore
    from featx.workflows.advice_features import extract_command
    from featx.workflows.advising import AdviseSettings, advise_store

    with FeatureStore(file) as opened, StepBar("scores") as bar:
        report = advise_store(
            opened,
            AdviseSettings(**settings),
            backbone=None if extraction is None else extraction.computer.backbone,
            entries=None if extraction is None else extraction.listing.entries,
            on_progress=lambda progress: bar(progress.n_done, progress.n_total, progress.seconds_left),
        )
        return report, extract_command(opened), _refusal(opened)


def _refusal(store: FeatureStore) -> str | None:
    from featx.workflows.tuning_sources import tunable_images

    try:
        tunable_images(store)
    except FeatxError as error:
        return str(error)
    return None


def _check_store_arguments(source: str, store: str | None, model: str | None, size: int | None) -> None:
    for option, value in (("--store", store), ("--model", model), ("--size", size)):
        if value is not None:
            raise UsageError(f"{option} is for images, and {source} is a store already; leave it out")


def _store_file(source: str, store: str | None, is_store: bool) -> str:
    """Return the file of the features, after checking that it can be written or continued."""
    from featx.workflows.advice_features import default_store
    from featx.workflows.file_kinds import CLASSIFIER, INDEX, STORE, kind_of

    if is_store:
        return source
    if kind_of(source) in (CLASSIFIER, INDEX):
        raise UsageError(f"{source} is neither images nor a store of features; give one of them")
    file = default_store(source) if store is None else store
    if os.path.isfile(file) and kind_of(file) != STORE:
        raise WouldOverwriteError(
            f"{file} is already there, and is no store that could be continued; give --store FILE"
        )
    check_output(file, source, overwrite=os.path.isfile(file), option="--store")
    return file


def _page_file(store: str, html: str | None, overwrite: bool) -> Path | None:
    """Return the file of the page, after checking that it can be written; none where nobody asked and it cannot."""
    from featx.workflows.advice_pages import check_own_page

    page = Path(store).with_suffix(".advice.html") if html is None else Path(html)
    if html is None and page.parent.is_dir() and not os.access(page.parent, os.W_OK):
        print(f"featx: {page} cannot be written, so that there is no page; --html names another place", file=sys.stderr)
        return None
    check_output(str(page), store, overwrite=True, option="--html")
    check_own_page(page, overwrite=overwrite)
    return page


def _extract(source: str, file: str, *, is_quiet: bool, **how: Any) -> tuple[Extraction, ExtractionReport]:
    """Extract what an advice needs, or continue; return how, and what was done."""
    from featx.images import list_images

    listing = list_images(source)  # first, because a wrong path should not wait for torch

    from featx.workflows.advice_features import prepare_extraction

    extraction = prepare_extraction(listing, file, **how)
    if not is_quiet:
        known = f", {extraction.n_known} known already" if extraction.n_known else ""
        print(
            f"{count(len(listing), 'image')}{known}; {extraction.computer.backbone.name}, features to {file}",
            file=sys.stderr,
        )
    with ProgressBar(len(listing)) as bar:
        extraction.progress = bar
        return extraction, extraction.run()


def _save_page(
    page: Path, report: AdviceReport, store: str, commands: Sequence[tuple[str, str]], overwrite: bool
) -> None:
    from featx.workflows.advice_pages import write_advice_page

    make_folder_of(page, "--html")
    write_advice_page(page, report, name=Path(store).stem, commands=commands, overwrite=overwrite)


def _as_json(
    report: AdviceReport, store: str, page: Path | None, commands: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    return {
        **report.to_json(),
        "commands": [{"for": what, "command": command} for what, command in commands],
        "store": store,
        "html": None if page is None else str(page),
    }
