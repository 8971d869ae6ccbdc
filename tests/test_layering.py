"""The house is built as its plan says: rooms, what each may import, and the rules that every file keeps."""

from __future__ import annotations

import ast
import importlib
import itertools
from pathlib import Path

import pytest

import featx

PACKAGE = Path(featx.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TEST_FILES = sorted(TESTS.glob("test_*.py"))

# From the ground up. `errors` is open to every room; `archive`, the file format of bundles and indexes, is a room of
# its own that only those two are written with.
MAY_IMPORT = {
    "errors": set(),
    "archive": set(),
    "images": set(),
    "backbones": set(),
    "store": set(),
    "extraction": {"images", "backbones", "store"},
    "reducers": set(),
    "heads": {"reducers"},
    "comparison": {"reducers", "heads"},
    "bundle": {"extraction", "heads", "archive"},
    "retrieval": {"reducers", "archive"},
    "advice": {"extraction", "comparison"},
    "finetuning": {"images", "backbones"},
}
MAY_IMPORT["workflows"] = set(MAY_IMPORT)
MAY_IMPORT["commands"] = set(MAY_IMPORT) | {""}
MAY_IMPORT["__main__"] = {"commands"}
MAY_IMPORT[""] = set(MAY_IMPORT) - {"__main__", "commands"}  # the package itself, which resolves names late

# What a room must never need, though it is not a room.
NEVER = {
    "images": {"torch", "timm", "h5py", "sklearn", "faiss", "openvino"},
    "store": {"torch", "timm", "sklearn", "faiss", "openvino", "PIL"},
    "reducers": {"torch", "timm", "h5py", "openvino", "PIL"},
    "heads": {"torch", "timm", "h5py", "openvino", "PIL"},
    "comparison": {"torch", "timm", "h5py", "openvino", "PIL"},
    "retrieval": {"torch", "timm", "h5py", "openvino", "PIL"},
    "archive": {"torch", "timm", "h5py", "sklearn", "faiss", "openvino", "PIL"},
    "extraction": {"h5py", "faiss", "openvino", "timm"},
    "workflows": {"h5py", "faiss", "openvino"},
    "commands": {"h5py", "faiss", "openvino", "timm", "torch", "sklearn", "PIL", "numpy"},
}
MAX_LINES = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "core", "misc"}


def room_of(module):
    """Return the room of a dotted module name; the package itself is the empty text."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def name_of(path):
    """Return the dotted module name of a file of the package."""
    parts = ["featx", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source, package):
    """Return every module that a source imports, anywhere in it, with relative names resolved.

    ``from featx import images`` counts as ``featx.images``, for the room is what is imported.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "featx" else [module]


def package_of(path):
    """Return the package that relative imports of a file count from."""
    return name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]


def crossings(source, package, room):
    """Return which rooms a source imports that its room may not."""
    rooms = {room_of(name) for name in imports_of(source, package) if name.split(".")[0] == "featx"}
    # `from featx import __version__` names no room.
    rooms = {found if found in MAY_IMPORT else "" for found in rooms}
    return rooms - MAY_IMPORT[room] - {room, "errors"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_import_only_what_they_may(path):
    """A module imports rooms of its column only, inside functions and for type checking too."""
    assert crossings(path.read_text(), package_of(path), room_of(name_of(path))) == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_stay_away_from_foreign_libraries(path):
    """Rooms that know arrays know neither HDF5 nor torch, and so on."""
    libraries = {name.split(".")[0] for name in imports_of(path.read_text(), package_of(path))}
    assert libraries & NEVER.get(room_of(name_of(path)), set()) == set()


def test_every_module_lies_in_a_known_room():
    """There is no room that the plan does not have."""
    assert {room_of(name_of(path)) for path in MODULES} <= set(MAY_IMPORT)


def test_the_plan_points_upward_only():
    """A room is listed after everything that it may import."""
    order = list(MAY_IMPORT)
    for room, allowed in MAY_IMPORT.items():
        if room and room != "commands":
            assert all(order.index(lower) < order.index(room) for lower in allowed)


@pytest.mark.parametrize(
    ("source", "package", "room", "expected"),
    [
        ("import featx.store", "featx.images", "images", {"store"}),
        ("from featx import store", "featx.images", "images", {"store"}),
        ("from featx.store.layout import x", "featx.images", "images", {"store"}),
        ("from ..store import x", "featx.images", "images", {"store"}),
        ("from .. import errors", "featx.images", "images", set()),
        ("from .geometry import x", "featx.images", "images", set()),
        ("def f():\n    from featx.store import x", "featx.reducers", "reducers", {"store"}),
        ("if TYPE_CHECKING:\n    import featx.heads", "featx", "reducers", {"heads"}),
        ("from featx.images import x", "featx.extraction", "extraction", set()),
        ("from featx.commands.tables import x", "featx.workflows", "workflows", {"commands"}),
    ],
)
def test_the_check_finds_crossings(source, package, room, expected):
    """The reading of imports, on sources whose answer is known."""
    assert crossings(source, package, room) == expected


@pytest.mark.parametrize("path", sorted((PACKAGE / "commands").glob("*.py")), ids=name_of)
def test_commands_import_late(path):
    """At its top a command imports nothing of featx but errors and other commands: the rest waits for its function."""
    top = ast.Module([node for node in ast.parse(path.read_text()).body if not _is_type_checking(node)], [])
    late = {node for function in ast.walk(top) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
    names = itertools.chain.from_iterable(
        imports_of(ast.unparse(node), "featx.commands")
        for node in ast.walk(top)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node not in late
    )
    rooms = {room_of(name) for name in names if name.split(".")[0] == "featx"}
    assert rooms <= {"commands", "errors", "__version__"}


def _is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_is_silent_and_raises(path):
    """No ``assert`` in the package, and no ``print`` outside of the commands."""
    tree = ast.parse(path.read_text())
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    printing = [node.lineno for node in calls if node.func.id in ("print", "breakpoint", "input")]
    assert not printing or room_of(name_of(path)) == "commands"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short_and_named_for_what_they_hold(path):
    """A module has at most 400 lines, and no name that says nothing."""
    assert len(path.read_text().splitlines()) <= MAX_LINES
    words = {word for part in path.relative_to(PACKAGE).with_suffix("").parts for word in part.strip("_").split("_")}
    assert words & VAGUE == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_things_are_described(path):
    """Modules, public classes, functions and methods have a docstring."""
    tree = ast.parse(path.read_text())
    undescribed = [] if ast.get_docstring(tree) else ["the module"]
    for owner in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        if isinstance(owner, ast.ClassDef) and owner.name.startswith("_"):
            continue
        for node in owner.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                undescribed += [] if ast.get_docstring(node) or _is_setter(node) else [node.name]
    assert undescribed == []


def _is_setter(node):
    return any(isinstance(mark, ast.Attribute) and mark.attr == "setter" for mark in node.decorator_list)


def test_no_public_function_is_called_like_a_room():
    """A room and a function of one name would hide each other."""
    names = {
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    assert names & set(MAY_IMPORT) == set()


def asserting(tree):
    """Return the names of functions in a module that assert something, themselves or through one another."""
    functions = {
        node.name: node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    found = {name for name, node in functions.items() if _asserts(node)}
    while True:
        more = {name for name, node in functions.items() if name not in found and _called(node) & found}
        if not more:
            return found
        found |= more


def _asserts(function):
    nodes = list(ast.walk(function))
    # A child process that asserts fails the test through `check=True`.
    checked = [node for node in nodes if isinstance(node, ast.keyword) and ast.unparse(node) == "check=True"]
    # `check` is what scikit-learn's parametrize_with_checks hands to a test.
    known = {"raises", "warns", "fail", "check"}
    named = [name for name in _called(function) if name in known or name.startswith("assert_")]
    return bool(checked or named) or any(isinstance(node, ast.Assert) for node in nodes)


def _called(function):
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_every_test_asserts_something_and_says_what(path):
    """Every test function asserts something, and has one sentence of what it promises."""
    tree = ast.parse(path.read_text())
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    found = asserting(tree)
    assert [node.name for node in tests if node.name not in found] == []
    assert [node.name for node in tests if not ast.get_docstring(node)] == []


def test_the_check_finds_tests_that_assert_nothing():
    """The reading of assertions, on functions whose answer is known."""
    source = """
def test_a(): f()
def test_b(): assert 1
def test_c(): helper()
def helper(): deeper()
def deeper(): np.testing.assert_equal(1, 1)
def test_d():
    with pytest.raises(ValueError): f()
"""
    assert asserting(ast.parse(source)) == {"test_b", "test_c", "helper", "deeper", "test_d"}


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_tests_mirror_the_house(path):
    """A test file is called after a room, a command, or one of the rules that hold for the whole house."""
    whole = {"layering", "import", "privacy", "readme"}
    assert path.stem.split("_")[1] in set(MAY_IMPORT) | whole


SCRIPTS = sorted((PACKAGE.parent / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_import_what_there_is(path):
    """Every name of featx that a script imports, inside functions too, is where the script says."""
    names = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "featx"
        for alias in node.names
    ]
    missing = [pair for pair in names if not hasattr(importlib.import_module(pair[0]), pair[1])]
    assert missing == []
