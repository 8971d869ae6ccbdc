"""From arguments to an exit code: the parser of all verbs, and the one place that maps errors to codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from featx import __version__
from featx.errors import FeatxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# In the order of a user's work. The module of a verb is imported at start, what it needs only when it runs.
VERBS = (
    "extract",
    "info",
    "verify",
    "export",
    "reduce",
    "duplicates",
    "advise",
    "compare",
    "fit-svm",
    "fit-logistic",
    "fit-ridge",
    "fit-tree",
    "fit-knn",
    "predict",
    "evaluate",
    "finetune",
    "roads",
    "index",
    "query",
    "evaluate-index",
    "layers",
    "models",
)

_INTERRUPTED = 130
_BUG = 70  # EX_SOFTWARE of sysexits.h
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

_EPILOG = """\
first steps:
  featx extract photos/ --out photos.h5                 features of all images
  featx fit-svm photos.h5 --out photos.featx            a classifier, scored on images it never saw
  featx predict photos.featx new/*.jpg                  class and probability
  featx index photos.h5 --out photos.index              search by image
  featx query photos.index new/one.jpg

exit codes: 0 done; 1 done, but some images failed; 2 bad usage or input; 3 refused; 130 interrupted, run it again
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors say where the help is; options are written out, so that new ones break no script."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"featx: error: {message}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = _Parser(
        prog="featx",
        description="Features of images by frozen networks: extract, store, classify, search.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"featx {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in VERBS:
        module = importlib.import_module(f"featx.commands.{verb.replace('-', '_')}")
        summary = (module.__doc__ or verb).partition("\n")[0]
        command = verbs.add_parser(
            verb,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(function=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; ``sys.argv[1:]`` by default.
    """
    try:
        parser = make_parser()
        parsed, rest = parser.parse_known_args(arguments)
        values = vars(parsed)
        _take_late_paths(parser, values, rest)
    except SystemExit as leaving:  # argparse leaves by itself after --help and after bad usage
        return int(leaving.code or 0)
    if hasattr(sys.stdout, "reconfigure"):  # a name that a terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    with _warnings_shown():
        return _run(values.pop("function"), values)


def _take_late_paths(parser: argparse.ArgumentParser, values: dict[str, Any], rest: Sequence[str]) -> None:
    """Give paths that come after options to a verb that takes any number of them.

    argparse decides on an empty list of paths where the first option begins, and refuses those behind it.
    """
    paths = [argument for argument in rest if not argument.startswith("-")]
    if len(paths) < len(rest) or (paths and not {"inputs", "source"} & values.keys()):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if "inputs" in values:
        values["inputs"] = [*values["inputs"], *paths]
    elif paths:
        if values["source"] is not None or len(paths) > 1:
            parser.error(f"unrecognized arguments: {' '.join(paths)}")
        values["source"] = paths[0]


def _run(function: Callable[..., int], values: Mapping[str, Any]) -> int:
    """Run the function of a verb; every error becomes a line on stderr and an exit code."""
    try:
        code = function(**values)
        sys.stdout.flush()  # a full disk or a reader that has gone shows here, not after the exit code
        return code
    except FeatxError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        print("featx: interrupted; run the same command again to continue", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `featx ... | head`
        _discard_output()
        return 0
    except MemoryError as error:
        return _fail(f"not enough memory ({error}); use fewer images, another layer, or --reduce pca:N", 2)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            _discard_output()  # it may be what does not fit
            return _fail(f"{error.strerror}: free some space and run the same command again", 2)
        traceback.print_exc()
        print(
            "featx: this is a bug in featx, not in your input; please report it with the lines above", file=sys.stderr
        )
        return _BUG


def _fail(message: str, code: int) -> int:
    print(f"featx: error: {message}", file=sys.stderr)
    return code


def _discard_output() -> None:
    """Send what is still to be written to nowhere, or Python would complain about it at exit."""
    with contextlib.suppress(OSError, ValueError):  # a stdout that is no file needs none of this
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show the library's warnings as plain lines on stderr while a command runs."""
    logger = logging.getLogger("featx")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("featx: %(message)s"))
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)
