"""From arguments to an exit code: the parser of all verbs, and the one place that maps errors to codes."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from featx import __version__
from featx.errors import FeatxError

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the order of a user's work. The module of a verb is imported at start, what it needs only when it runs.
VERBS = (
    "extract",
    "info",
    "verify",
    "export",
    "fit-svm",
    "fit-logistic",
    "fit-tree",
    "predict",
    "index",
    "query",
    "layers",
    "models",
)

_INTERRUPTED = 130
_BUG = 70  # EX_SOFTWARE of sysexits.h

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
    """A parser whose errors say where the help is."""

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
        values = vars(make_parser().parse_args(arguments))
    except SystemExit as leaving:  # argparse leaves by itself after --help and after bad usage
        return int(leaving.code or 0)
    _show_warnings()
    function = values.pop("function")
    try:
        return function(**values)
    except FeatxError as error:
        print(f"featx: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("featx: interrupted; run the same command again to continue", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `featx ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        print(
            "featx: this is a bug in featx, not in your input; please report it with the lines above", file=sys.stderr
        )
        return _BUG


def _show_warnings() -> None:
    """Show the library's warnings as plain lines on stderr."""
    logger = logging.getLogger("featx")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("featx: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
