"""The README cannot drift from the program: its examples run, and it names every verb and no option that is not there.

A fenced block with ``<!-- tested -->`` on the line before it is run: the ``$ featx`` lines of a ``console`` block one
after the other, a ``python`` block as it stands, all in one folder that has ``photos/`` (three classes) and
``new/one.jpg``.
"""

from __future__ import annotations

import glob
import itertools
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_backbone import write_pictures
from gallery import run, verb_parsers

from featx.commands.command_line import VERBS, make_parser

README = Path(__file__).parents[1] / "README.md"
MARK = "<!-- tested -->"
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SHELL = {"|", ">", ">>", "<", "&&", "||", ";", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    body: str
    is_tested: bool


def blocks_of(text):
    """Return the fenced blocks of a page, in order."""
    return [
        Block(match["language"], match["body"], text[: match.start()].rstrip("\n").endswith(MARK))
        for match in FENCE.finditer(text)
    ]


def featx_commands(body):
    """Return the arguments of each ``$ featx`` line of a console block, continued lines joined, comments dropped."""
    lines = body.replace("\\\n", " ").splitlines()
    return [shlex.split(line[2:], comments=True)[1:] for line in lines if line.startswith("$ featx ")]


def expanded(arguments):
    """Return the arguments with wildcards replaced by the files that match, as a shell would."""
    unfit = SHELL & set(arguments)
    if unfit:
        pytest.fail(f"a tested command needs a shell for {unfit}; take its mark away or write it without")
    matches = [sorted(glob.glob(word)) or [word] if set(word) & set("*?[") else [word] for word in arguments]
    return list(itertools.chain.from_iterable(matches))


@pytest.fixture(scope="module")
def readme():
    """The text of the README."""
    return README.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the examples of the README speak of, as working folder."""
    write_pictures(tmp_path / "photos")
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "photos" / "red" / "000.jpg", tmp_path / "new" / "one.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_examples_run(readme, capsys):
    """Every marked example of the README does what it says, with exit code 0, in the order of the page."""
    tested = [block for block in blocks_of(readme) if block.is_tested]
    assert {block.language for block in tested} == {"console", "python"}
    names: dict[str, object] = {}
    for block in tested:
        if block.language == "python":
            exec(compile(block.body, str(README), "exec"), names)
            continue
        commands = featx_commands(block.body)
        assert commands
        for arguments in commands:
            assert run(*expanded(arguments)) == 0, f"featx {shlex.join(arguments)}: {capsys.readouterr().err}"


def test_nothing_is_left_to_fill_in(readme):
    """No line of the page is a placeholder: a lone word in capitals."""
    assert re.findall(r"^[A-Z_]{4,}$", readme, re.MULTILINE) == []


def test_every_verb_is_in_the_readme(readme):
    """Each verb of the program is mentioned as ``featx VERB``."""
    mentioned = set(re.findall(r"featx ([a-z][a-z-]*)", readme))
    assert set(VERBS) - mentioned == set()


def test_every_command_of_the_readme_can_be_parsed(readme):
    """No example, tested or not, uses a verb or option that the program does not have."""
    commands = [arguments for block in blocks_of(readme) for arguments in featx_commands(block.body)]
    assert commands
    for arguments in commands:
        assert make_parser().parse_args(arguments).function


def test_every_option_of_the_readme_exists(readme):
    """Each ``--option`` that the page mentions, outside of pip's, is one of some verb."""
    known = set().union(*(parser._option_string_actions for parser in verb_parsers().values()), {"--version"})
    mentioned = {option for line in readme.splitlines() if "pip" not in line for option in OPTION.findall(line)}
    assert mentioned - known == set()
    assert mentioned


PAGE = """
Text with --strange-option and `featx fit-svm`.

<!-- tested -->
```console
$ featx extract photos \\
    --out "my f.h5"   # a comment
24 images
$ featx info 'my f.h5'
$ ls
```

```console
$ featx predict new/*.jpg
```
<!-- tested -->

```python
x = 1
```
"""


def test_the_page_is_read_right():
    """Marks, fences, continued lines, quotes and comments, on a page whose answer is known."""
    console, other, python = blocks_of(PAGE)
    assert (console.language, console.is_tested) == ("console", True)
    assert (other.language, other.is_tested) == ("console", False)
    assert (python.language, python.body, python.is_tested) == ("python", "x = 1\n", True)
    assert featx_commands(console.body) == [["extract", "photos", "--out", "my f.h5"], ["info", "my f.h5"]]
    assert OPTION.findall(PAGE) == ["--strange-option", "--out"]


@pytest.mark.usefixtures("folder")
def test_wildcards_are_expanded():
    """Wildcards become files in order; what matches nothing stays, and what needs a shell is an error."""
    assert expanded(["info", "new/*.jpg", "no*"]) == ["info", "new/one.jpg", "no*"]
    with pytest.raises(pytest.fail.Exception, match="needs a shell"):
        expanded(["info", "x", "|", "head"])
