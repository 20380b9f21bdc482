"""The rules that CONTRIBUTING.md states, checked: floors, faces, sizes, errors, cost of the import."""

import ast
import importlib
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import splitpipe
import splitpipe.errors

PACKAGE = Path(splitpipe.__file__).parent

# Which floor each part is on; an import goes down, or sideways within the part itself.
FLOORS = {
    "errors": 0,
    "lane": 0,
    "memory": 0,
    "progress": 0,
    "arrays": 1,
    "codecs": 1,
    "order": 1,
    "storage": 1,
    "transport": 1,
    "workers": 2,
    "pipeline": 3,
    "build": 4,
    "loader": 4,
    "__init__": 5,
    "cli": 6,
    "__main__": 7,
}
ALLOWED_ON_ONE_FLOOR = {("storage", "codecs")}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imported_parts(path: Path) -> set[str]:
    parts = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "splitpipe":
            below = node.module.split(".")[1:]
            parts.add(below[0] if below else "__init__")
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            parts |= {name[1] if len(name) > 1 else "__init__" for name in names if name[0] == "splitpipe"}
    return parts


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """No module imports from a floor above, nor from another part of its own floor."""
    part = _part(path)
    for other in _imported_parts(path) - {part}:
        below = FLOORS[other] < FLOORS[part] or (part, other) in ALLOWED_ON_ONE_FLOOR
        assert below or FLOORS[part] == FLOORS[other] == 0, f"{path.name} of {part} imports {other}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_of_readable_size(path: Path) -> None:
    """A module tells what it holds, and neither it nor a function grows beyond what one reads in one go."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)

    assert ast.get_docstring(tree), "a module opens with what lives in it"
    assert text.count("\n") <= MAX_MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


def _all_modules() -> list[str]:
    found = pkgutil.walk_packages([str(PACKAGE)], "splitpipe.")
    return ["splitpipe", *(module.name for module in found if not module.name.endswith("__main__"))]


@pytest.mark.parametrize("name", _all_modules())
def test_all_names_exist_and_are_documented(name: str) -> None:
    """`__all__` is there, true, and each class and function in it has a docstring."""
    module = importlib.import_module(name)

    assert len(module.__all__) == len(set(module.__all__))
    for public in module.__all__:
        thing = getattr(module, public)
        if callable(thing):
            assert thing.__doc__, public


def test_every_error_survives_two_pickles_and_is_in_the_tree() -> None:
    """Text and fields stay the same when an error crosses processes; all descend from SplitpipeError."""
    fields: dict[str, dict[str, object]] = {
        "BuildInputError": {"input": 5},
        "CorruptDataError": {"path": "a/b", "record": 3, "offset": 64},
        "WorkerDiedError": {"worker": 1, "pid": 2, "exitcode": -9},
    }
    for name in splitpipe.errors.__all__:
        error = getattr(splitpipe.errors, name)("what happened, and the cure", **fields.get(name, {}))
        copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))

        assert isinstance(error, splitpipe.errors.SplitpipeError)
        assert type(copy) is type(error)
        assert str(copy) == str(error) == "what happened, and the cure"
        assert copy.__dict__ == error.__dict__ == fields.get(name, {})
        assert name in (splitpipe.errors.__doc__ or "")


def test_importing_loads_nothing_optional() -> None:
    """Only numpy, and what Python brings, until something else is used."""
    code = "import sys, splitpipe; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "numpy" in loaded
    assert not {"torch", "tqdm", "rich", "pandas", "pyarrow", "multiprocessing", "psutil"} & set(loaded)
