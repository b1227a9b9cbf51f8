"""The rules of the code as data and as functions: each takes a parsed module and returns what is wrong with it."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

# --- the rules as data -----------------------------------------------------------------------------------------------

#: Who may import whom: a part may import the parts in the lines above its own, never below or beside.
ORDER: tuple[tuple[str, ...], ...] = (
    ("units", "errors", "extents", "buffers", "clock", "randomness", "threads", "hostfs"),
    ("environment", "rangelock"),
    ("device",),
    ("kernels",),
    ("layers", "array", "pool", "keys", "backends"),
    ("nvme", "testing"),
    ("monitor",),
    ("config",),
    ("attributes",),
    ("exposed",),
    ("opening", "watch", "configuration"),
    ("spares",),
    ("rejoining",),
    ("manager", "initialize"),
    ("fuse", "control", "export"),
    ("tools",),
)
#: Nobody imports these but tests.
FOR_TESTS = ("testing",)
#: Pure arithmetic and codecs: they take no device, and so do no I/O.
PURE = (
    "orionfs.units",
    "orionfs.extents",
    "orionfs.array.bitmap",
    "orionfs.array.layout",
    "orionfs.array.levels",
    "orionfs.array.placement",
    "orionfs.array.ppl_format",
    "orionfs.array.raid10_layout",
    "orionfs.array.superblock",
    "orionfs.array.support",
    "orionfs.array.verdict",
    "orionfs.kernels.galois",
    "orionfs.kernels.checksums",
    "orionfs.kernels.parity",
    "orionfs.config.spec",
)
#: What only some may import, from outside the standard library: the module, and the prefixes of those who may.
FOREIGN: Mapping[str, tuple[str, ...]] = {
    "trio": ("orionfs.", "tests."),
    "outcome": ("orionfs.threads",),
    "numpy": ("orionfs.kernels", "orionfs.testing", "tests."),
    "tomlkit": ("orionfs.config", "tests."),
    "google_crc32c": ("orionfs.kernels",),
    "lz4": ("orionfs.kernels", "tests."),
    "cryptography": ("orionfs.kernels", "orionfs.keys", "tests."),
    # Filesystems without OrionFS: the ceiling that ours is measured against, and one that is slow on purpose.
    "pyfuse3": ("orionfs.fuse.binding", "orionfs.tools.benchmarks.null_filesystem", "tests.campaigns"),
    "setuptools": ("setup",),
    "pytest": ("tests.",),
    "hypothesis": ("tests.",),
}
#: Programs that start in under 100 ms, and what would cost them that.
LIGHT = ("orionfs.tools.orionctl", "orionfs.control.client", "orionfs.control.runtime", "orionfs.tools.umount_orionfs")
HEAVY = ("trio", "pyfuse3", "numpy", "lz4", "cryptography")

#: Ways around the environment.
BANNED = (
    "time",
    "random",
    "secrets",
    "threading",
    "_thread",
    "concurrent.futures",
    "multiprocessing",
    "asyncio",
    "os.urandom",
    "os.getrandom",
    "os.times",
    "uuid.uuid1",
    "uuid.uuid4",
    "trio.to_thread",
    "trio.from_thread",
    "trio.sleep",
    "trio.sleep_until",
    "trio.current_time",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
)
#: Who may, with the reason.
SEAMS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "orionfs.clock": (("time", "trio.sleep", "trio.current_time"), "it is the seam for time"),
    "orionfs.randomness": (("os.urandom",), "it is the seam for chance"),
    "orionfs.threads": (("threading",), "it is the seam for threads"),
    "orionfs.testing.simulation": (("trio.sleep", "trio.current_time"), "its clock is the simulated seam"),
    "orionfs.tools.benchmarks": (("time", "threading", "random"), "it measures the real machine from outside"),
}
#: A generator that is made from a seed is no way around anything.
ALLOWED = ("random.Random",)

#: Lines of a file, lines of a function; and who may be longer, with the reason.
FILE_LINES = 600
FUNCTION_LINES = 60
LONGER: Mapping[str, str] = {}

#: Modules that may catch everything and go on, with the reason.
OUTER_WRAPPERS: Mapping[str, str] = {
    "orionfs.control.server": "the outer wrapper of a control request: logs, and answers that it failed",
    "orionfs.fuse.binding": "the outer wrapper of a FUSE handler: anything else would end the mount",
    "orionfs.tools.daemon": "the outermost frame of the daemon: logs, and tells whoever waits for it",
    "orionfs.testing.trial": "keeps the first failure until all requests have ended, then raises it",
    "orionfs.testing.conformance": "closes the device of a check that has failed, whose error is the news",
}

# --- modules ---------------------------------------------------------------------------------------------------------


class Module(NamedTuple):
    """One file of Python, by the name under which it is imported."""

    name: str
    text: str
    tree: ast.Module
    package: bool = False


def parse(name: str, text: str, *, package: bool = False) -> Module:
    return Module(name, text, ast.parse(text), package)


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ("backends", "tools"):
        parts.insert(0, "orionfs")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_modules() -> list[Module]:
    """Everything that is Python here; the symlinks in orionfs are read by their real names."""
    paths = [path for folder in ("orionfs", "backends", "tools", "tests") for path in (ROOT / folder).rglob("*")]
    links = [ROOT / "orionfs" / "backends", ROOT / "orionfs" / "tools"]
    found = [ROOT / "setup.py"]
    for path in sorted(paths):
        if path.is_file() and is_python(path) and not any(link in path.parents for link in links):
            found.append(path)
    return [parse(module_name(path), path.read_text(), package=path.name == "__init__.py") for path in found]


def is_python(path: Path) -> bool:
    if path.suffix == ".py":
        return True
    with path.open("rb") as file:
        first = file.readline(80)
    return not path.suffix and first.startswith(b"#!") and b"python" in first


# --- imports ---------------------------------------------------------------------------------------------------------


class Import(NamedTuple):
    target: str
    line: int
    top: bool  # carried out when the module is imported


def imports(module: Module) -> Iterator[Import]:
    """Every import, relative ones resolved.  ``from a import b`` counts as ``a.b``."""
    yield from _imports(module, module.tree.body, top=True)


def _imports(module: Module, body: Iterable[ast.stmt], *, top: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                parts = parts[: len(parts) - node.level + module.package]
                base = ".".join([*parts, base] if base else parts)
            yield from (Import(f"{base}.{alias.name}", node.lineno, top) for alias in node.names)
        else:
            inner = top and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _only_for_types(node)
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(module, _statements(node, field), top=inner or (top and field == "orelse"))
            for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                yield from _imports(module, part.body, top=inner)


def _statements(node: ast.stmt, field: str) -> list[ast.stmt]:
    found = getattr(node, field, [])
    return found if isinstance(found, list) else []


def _only_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _part(target: str) -> str:
    pieces = target.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[0] == "orionfs" else ""


def wrong_imports(module: Module, order: Sequence[Sequence[str]] = ORDER) -> list[str]:
    """Imports against :data:`ORDER`, second copies of our packages, foreign packages out of place."""
    rank = {part: number for number, line in enumerate(order) for part in line}
    own = _part(module.name)
    wrong = []
    for target, line, _top in imports(module):
        first = target.split(".")[0]
        part = _part(target)
        if first == "tests" and module.name.startswith("tests."):
            continue  # their own kits
        if first in ("backends", "tools", "tests"):
            wrong.append(f"{module.name}:{line}: {target} would be a second copy of ours; write orionfs.{first}")
        elif first == "orionfs":
            if own and part and part not in rank and part != "__version__":
                wrong.append(f"{module.name}:{line}: {target} has no place in the order of imports")
            elif own and part != own and part in rank and rank[part] >= rank.get(own, -1):
                wrong.append(f"{module.name}:{line}: {own} may not import {part}")
            elif own and part in FOR_TESTS and part != own:
                wrong.append(f"{module.name}:{line}: {part} is for tests")
        elif first not in sys.stdlib_module_names and first != "__future__":
            allowed = FOREIGN.get(first, ())
            if not any(f"{module.name}.".startswith(prefix) for prefix in allowed):
                wrong.append(f"{module.name}:{line}: {first} may not be imported here")
    return wrong


def closure(start: str, modules: Mapping[str, Module]) -> dict[str, str]:
    """Everything that importing *start* imports, ours and foreign, with the module that asks for it."""
    found: dict[str, str] = {}
    waiting = [(start, "")]
    while waiting:
        name, by = waiting.pop()
        pieces = name.split(".")
        for length in range(1, len(pieces) + 1):
            prefix = ".".join(pieces[:length])
            if prefix in found or (pieces[0] == "orionfs" and prefix not in modules):
                continue
            found[prefix] = by
            if prefix in modules:
                waiting += [(item.target, prefix) for item in imports(modules[prefix]) if item.top]
    return found


def heavy_imports(module: str, modules: Mapping[str, Module]) -> list[str]:
    found = closure(module, modules)
    return [f"{module} imports {heavy}, by way of {found[heavy]}" for heavy in HEAVY if heavy in found]


def does_io(module: Module) -> list[str]:
    """What a module of :data:`PURE` must not have."""
    wrong = [
        f"{module.name}:{item.line}: imports {item.target}, but it is pure"
        for item in imports(module)
        if item.target.split(".")[0] in ("os", "io", "socket", "trio", "subprocess")
        or item.target.startswith(("orionfs.device", "orionfs.environment", "orionfs.hostfs"))
    ]
    wrong += [
        f"{module.name}:{node.lineno}: is async, but it is pure"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    return wrong


# --- seams -----------------------------------------------------------------------------------------------------------


def around_the_seams(module: Module, seams: Mapping[str, tuple[tuple[str, ...], str]] = SEAMS) -> list[str]:
    """Uses of what only the seams may use, by whatever name it was imported."""
    may: set[str] = set()
    for name, (allowed, _reason) in seams.items():
        if module.name == name or module.name.startswith(f"{name}."):
            may.update(allowed)
    names = _bindings(module)
    wrong = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name) and (used := _dotted(node, names)):
            wrong += [f"{module.name}:{node.lineno}: {used} goes around the environment" for _ in _hits(used, may)]
    return sorted(set(wrong))


def _hits(used: str, may: set[str]) -> Iterator[str]:
    if used in ALLOWED:
        return
    for banned in BANNED:
        exactly = "." in banned and used == banned
        if banned not in may and (exactly or used.startswith(f"{banned}.")):
            yield banned


def _bindings(module: Module) -> dict[str, str]:
    """Local names to what they were imported as."""
    names: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


# --- size, words, handlers -------------------------------------------------------------------------------------------


def too_long(module: Module) -> list[str]:
    lines = module.text.count("\n")
    wrong = []
    if lines > FILE_LINES and module.name not in LONGER:
        wrong.append(f"{module.name}: {lines} lines, and {FILE_LINES} is where a file is split")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES and f"{module.name}.{node.name}" not in LONGER:
                wrong.append(f"{module.name}:{node.lineno}: {node.name} has {length} lines, more than {FUNCTION_LINES}")
    return wrong


_LATER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")


def left_for_later(name: str, text: str) -> list[str]:
    return [
        f"{name}:{number}: {match[0]} is work that was not done"
        for number, line in enumerate(text.splitlines(), 1)
        if (match := _LATER.search(line))
    ]


def stubs_and_swallowing(module: Module) -> list[str]:
    """NotImplementedError, bare except, handlers that do nothing, handlers of everything that do not raise."""
    wrong = []
    for node in ast.walk(module.tree):
        place = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Name) and node.id == "NotImplemented" + "Error":
            wrong.append(f"{place}: a stub")
        elif isinstance(node, ast.ExceptHandler):
            wrong += [f"{place}: {problem}" for problem in _handler_problems(module, node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("suppress", "contextlib.suppress"):
            broad = {"Exception", "BaseException", "OrionError", "DeviceError"} & {
                ast.unparse(arg) for arg in node.args
            }
            if broad and module.name not in OUTER_WRAPPERS:
                wrong.append(f"{place}: suppresses every {', '.join(sorted(broad))}")
    return wrong


def _handler_problems(module: Module, handler: ast.ExceptHandler) -> Iterator[str]:
    if handler.type is None:
        yield "a bare except"
        return
    if all(isinstance(node, ast.Pass) or _is_ellipsis(node) for node in handler.body):
        lines = module.text.splitlines()[handler.lineno - 1 : handler.end_lineno]
        if not any("#" in line for line in lines):
            yield "swallows an exception without saying why it may"
    caught = {ast.unparse(item) for item in getattr(handler.type, "elts", [handler.type])}
    if caught & {"Exception", "BaseException"} and module.name not in OUTER_WRAPPERS:
        raises = any(isinstance(node, ast.Raise) for statement in handler.body for node in ast.walk(statement))
        if not raises:
            yield "catches everything and goes on"


def _is_ellipsis(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...


def prints(module: Module) -> list[str]:
    return [
        f"{module.name}:{node.lineno}: print belongs into the programs"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


_BAD_NAME = re.compile(r"^_?Advanced|(Handler|Utils?|Helper|Manager)$")


def poor_names(module: Module) -> list[str]:
    return [
        f"{module.name}:{node.lineno}: {node.name} says nothing; which noun of the field is it?"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and _BAD_NAME.search(node.name) and node.name != "StorageManager"
    ]


# --- docstrings ------------------------------------------------------------------------------------------------------


def documented_methods(modules: Iterable[Module]) -> set[str]:
    """Names of methods whose contract some interface states: who implements it need not state it again."""
    return {
        method.name
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and _is_interface(node)
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(method)
    }


def _is_interface(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases}
    return bool(bases & {"Protocol", "ABC", "Engine", "StorageDevice"})


def without_docstring(module: Module, contracts: set[str], *, whole: bool) -> list[str]:
    """The module itself if it has any code; with *whole* also every public class, function and method in it."""
    wrong = []
    if module.tree.body and not ast.get_docstring(module.tree):
        wrong.append(f"{module.name}: has no docstring")
    if whole:
        wrong += _undocumented(module, module.tree.body, contracts, "")
    return wrong


def _undocumented(module: Module, body: Iterable[ast.stmt], contracts: set[str], owner: str) -> Iterator[str]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        bare = ast.get_docstring(node) is None
        if bare and not (owner and node.name in contracts) and not _is_variant(node):
            yield f"{module.name}:{node.lineno}: {owner}{node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(module, node.body, contracts, f"{node.name}.")


def _is_variant(node: ast.stmt) -> bool:
    """A setter or an overload: its first form has the docstring."""
    marks = [ast.unparse(mark) for mark in getattr(node, "decorator_list", [])]
    return any(mark.endswith((".setter", "overload", ".deleter")) for mark in marks)


# --- comments --------------------------------------------------------------------------------------------------------


def unexplained_exceptions(module: Module) -> list[str]:
    """``noqa`` and ``type: ignore`` that do not name the rule."""
    wrong = []
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT and re.search(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[))", token.string):
            wrong.append(f"{module.name}:{token.start[0]}: switches a check off without saying which")
    return wrong
