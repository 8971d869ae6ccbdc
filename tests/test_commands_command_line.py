"""From arguments to an exit code: help, bad usage, and what becomes of errors that nobody expected."""

from __future__ import annotations

import errno
import importlib
import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gallery import run, verb_parsers

import featx
from featx import errors
from featx.commands import info
from featx.commands.command_line import VERBS, main

# Unbuffered output would fail early, where the tests below ask what happens at the end.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ENVIRONMENT["PYTHONPATH"] = str(Path(featx.__file__).parents[1])
ARCHIVE = Path(__file__).parent / "archives" / "format-1.h5"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    """The help of a verb is on stdout and names the verb."""
    assert main([verb, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: featx {verb} ")
    assert err == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_says_what_it_is(verb):
    """No argument of a verb is without help, and no function takes other arguments than the verb declares."""
    actions = verb_parsers()[verb]._actions
    assert all(action.help for action in actions)
    module = importlib.import_module(f"featx.commands.{verb.replace('-', '_')}")
    names = {action.dest for action in actions} - {"help"}
    expected = inspect.signature(module.run).parameters
    assert names == set(expected) or "values" in expected


def test_the_help_lists_every_verb_and_exit_code(capsys):
    """``featx --help`` names all verbs, the first steps and the exit codes."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {verb}" in out for verb in VERBS)
    assert "first steps:" in out
    assert all(f"{code} " in out for code in (0, 1, 2, 3, 130))


def test_version(capsys):
    """``--version`` is the version of the package."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"featx {featx.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: VERB; see featx --help"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["extract"], "SOURCE, --out; see featx extract --help"),
        (["extract", "photos", "--out", "x.h5", "--modl", "resnet18"], "unrecognized arguments: --modl"),
        (["info", "x.h5", "--js"], "unrecognized arguments: --js"),
        (["predict", "c.featx", "x.png", "--json", "--csv"], "not allowed with"),
        (["extract", "photos", "--out", "x.h5", "--limit", "many"], "invalid int value: 'many'"),
    ],
)
def test_bad_usage_is_exit_code_2(arguments, said, capsys):
    """Bad usage says on stderr, in one line, what is wrong; options cannot be abbreviated."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("featx: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("some reason"), 2),
        (errors.StoreError("some reason"), 2),
        (errors.FeatureKeyError("some reason"), 2),
        (errors.HeadError("some reason"), 2),
        (errors.WouldOverwriteError("some reason"), 3),
        (errors.FingerprintMismatchError("some reason"), 3),
        (errors.UnsafeFileError("some reason"), 3),
    ],
)
def test_errors_of_featx_become_a_line_and_their_code(error, code, monkeypatch, capsys):
    """An error that featx raises on purpose is one line on stderr and its own exit code."""
    monkeypatch.setattr(info, "run", _raising(error))
    assert main(["info", "x"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "featx: error: some reason\n")


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys):
    """Ctrl-C says that the command can be repeated, without a traceback."""
    monkeypatch.setattr(info, "run", _raising(KeyboardInterrupt()))
    assert main(["info", "x"]) == 130
    assert capsys.readouterr().err == "featx: interrupted; run the same command again to continue\n"


def test_an_unexpected_error_is_exit_code_70_with_a_traceback(monkeypatch, capsys):
    """A bug shows its traceback and says that it is a bug."""
    monkeypatch.setattr(info, "run", _raising(ZeroDivisionError("division by nothing")))
    assert main(["info", "x"]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback (most recent call last)" in err
    assert "ZeroDivisionError: division by nothing" in err
    assert "this is a bug in featx" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "not enough memory (Unable to allocate 9 GiB)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: free some space"),
    ],
)
def test_a_machine_that_is_too_small_is_no_bug(error, said, monkeypatch, capsys):
    """Too little memory or disk is exit 2 with advice, not a traceback."""
    monkeypatch.setattr(info, "run", _raising(error))
    assert main(["info", "x"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_a_reader_that_has_gone_is_no_error(monkeypatch, capsys):
    """A broken pipe inside a command ends it silently."""
    monkeypatch.setattr(info, "run", _raising(BrokenPipeError()))
    assert main(["info", "x"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_closed_pipe_leaves_no_trace():
    """``featx ... | head`` ends silently, although Python writes what is left only at exit."""
    with subprocess.Popen(
        [sys.executable, "-m", "featx", "info", str(ARCHIVE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as child:
        child.stdout.close()
        errors_shown = child.stderr.read()
        assert child.wait(60) == 0
    assert errors_shown == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_that_does_not_fit_is_an_error():
    """A full disk behind stdout is exit 2, never a result that is silently cut off."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "featx", "info", str(ARCHIVE)],
            stdout=full,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("featx: error: No space left on device")
    assert done.stderr.count("\n") == 1


def test_names_that_the_terminal_cannot_show():
    """A class called by letters that stdout does not have is shown escaped."""
    done = subprocess.run(
        [sys.executable, "-m", "featx", "info", str(ARCHIVE)],
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert "B\\xe4r" in done.stdout
    assert "\\u732b" in done.stdout


def test_warnings_of_the_library_are_lines_on_stderr(monkeypatch, capsys):
    """What the library logs is shown while a command runs, and logging is as before afterwards."""
    logger = logging.getLogger("featx")
    before = (list(logger.handlers), logger.propagate)

    def warn(**_):
        logging.getLogger("featx.somewhere").warning("slower than it could be")
        return 0

    monkeypatch.setattr(info, "run", warn)
    assert main(["info", "x"]) == 0
    assert capsys.readouterr() == ("", "featx: slower than it could be\n")
    assert (list(logger.handlers), logger.propagate) == before


def test_the_module_runs_as_a_program():
    """``python -m featx`` gives the exit code to the shell."""
    done = subprocess.run(
        [sys.executable, "-m", "featx", "info", "nothing.h5"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "nothing.h5" in done.stderr


@pytest.mark.parametrize("verb", ["fit-svm", "fit-logistic", "fit-tree", "index", "export"])
class TestOutput:
    """Every verb that makes a file from a store says the same about ``--out``, before it works."""

    def test_a_folder_is_refused(self, verb, tmp_path, capsys):
        """``--out`` names a file, not a folder."""
        assert run(verb, ARCHIVE, "--out", tmp_path) == 2
        assert "is a folder; give the name of a file in it" in capsys.readouterr().err

    def test_a_file_in_place_of_a_folder_is_refused(self, verb, tmp_path, capsys):
        """A file cannot hold the result."""
        (tmp_path / "file").write_text("")
        assert run(verb, ARCHIVE, "--out", tmp_path / "file" / "x.npy") == 2
        assert "is a file, not a folder" in capsys.readouterr().err

    def test_what_is_there_stays(self, verb, tmp_path, capsys):
        """Without ``--overwrite`` nothing is replaced."""
        (tmp_path / "x.npy").write_text("precious")
        assert run(verb, ARCHIVE, "--out", tmp_path / "x.npy") == 3
        assert "choose another --out, or give --overwrite" in capsys.readouterr().err
        assert (tmp_path / "x.npy").read_text() == "precious"

    def test_the_store_itself_is_never_replaced(self, verb, tmp_path, capsys):
        """Even ``--overwrite`` does not put a result in the place of what it is made from."""
        store = tmp_path / "s.h5"
        store.write_bytes(ARCHIVE.read_bytes())
        assert run(verb, store, "--out", tmp_path / "." / "s.h5", "--overwrite") == 3
        assert "is the file that the result is made from" in capsys.readouterr().err
        assert store.read_bytes() == ARCHIVE.read_bytes()


def _raising(error):
    def run(**_):
        raise error

    return run
