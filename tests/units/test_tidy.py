"""The style of the project, executed: every rule holds for every file, and every rule can fail."""

import configparser
import json
import subprocess
import sys

import pytest

from . import tidy_rules as rules
from .tidy_rules import ROOT, parse

MODULES = rules.all_modules()
BY_NAME = {module.name: module for module in MODULES}
OURS = [module for module in MODULES if module.name.startswith("orionfs")]
LIBRARY = [module for module in OURS if not module.name.startswith("orionfs.tools")]
CONTRACTS = rules.documented_methods(OURS)


def hold(*problems):
    assert not [problem for found in problems for problem in found], "\n".join(
        problem for found in problems for problem in found
    )


# --- they hold -------------------------------------------------------------------------------------------------------


def test_there_is_code_to_look_at():
    assert len(LIBRARY) > 20
    assert "orionfs.backends.file" in BY_NAME
    assert "orionfs.tools.orionctl.main" in BY_NAME
    assert "tests.units.test_tidy" in BY_NAME


def test_nobody_imports_upwards_sideways_or_what_is_not_his():
    hold(*map(rules.wrong_imports, MODULES))


def test_every_part_of_the_library_has_its_place_in_the_order():
    known = {part for line in rules.ORDER for part in line}
    parts = {module.name.split(".")[1] for module in OURS if "." in module.name}
    assert parts <= known, f"without a place in ORDER: {sorted(parts - known)}"


def light_modules():
    return [name for name in BY_NAME if any(name == light or name.startswith(f"{light}.") for light in rules.LIGHT)]


def test_the_client_programs_import_nothing_heavy():
    assert len(light_modules()) > 10
    hold(*(rules.heavy_imports(name, BY_NAME) for name in light_modules()))


def test_the_client_programs_import_nothing_heavy_when_they_run():
    code = f"""
import importlib, json, sys
for name in {sorted(light_modules())!r}:
    importlib.import_module(name)
print(json.dumps(sorted(set({rules.HEAVY!r}) & set(sys.modules))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(result.stdout) == []


def test_arithmetic_and_codecs_do_no_io():
    missing = set(rules.PURE) - set(BY_NAME)
    assert not missing, f"no such module: {sorted(missing)}"
    hold(*(rules.does_io(BY_NAME[name]) for name in rules.PURE))


def test_nobody_goes_around_the_environment():
    hold(*map(rules.around_the_seams, OURS))


def test_files_and_functions_are_short():
    hold(*map(rules.too_long, MODULES))


def test_nothing_is_left_for_later():
    texts = [path for pattern in ("*.md", "*.cfg", "*.toml") for path in ROOT.glob(pattern)]
    texts += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "mountpoints").rglob("*.md")]
    hold(
        *(rules.left_for_later(module.name, module.text) for module in MODULES),
        *(rules.left_for_later(str(path.relative_to(ROOT)), path.read_text()) for path in texts),
    )


def test_there_are_no_stubs_and_no_swallowed_exceptions():
    hold(*map(rules.stubs_and_swallowing, OURS))


def test_the_library_prints_nothing():
    hold(*map(rules.prints, LIBRARY))


def test_classes_are_named_after_things():
    hold(*map(rules.poor_names, OURS))


def test_what_is_public_is_documented():
    hold(*(rules.without_docstring(module, CONTRACTS, whole=module in LIBRARY) for module in MODULES))


def test_a_check_that_is_switched_off_is_named():
    hold(*map(rules.unexplained_exceptions, MODULES))


@pytest.mark.parametrize("name", ["backends", "tools"])
def test_everything_installs_below_orionfs_by_a_tracked_symlink(name):
    link = ROOT / "orionfs" / name
    assert link.is_symlink()
    assert link.readlink().as_posix() == f"../{name}"
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-s", f"orionfs/{name}"], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        assert listed.startswith("120000 "), "not tracked as a symlink"


def test_every_package_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    assert listed == {module.name for module in OURS if module.package}


# --- they can fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("orionfs.device", "from orionfs.array.levels import LEVELS", "device may not import array"),
        ("orionfs.layers.a", "from orionfs.array import b", "layers may not import array"),
        ("orionfs.array.a", "def f():\n    import orionfs.manager", "array may not import manager"),
        ("orionfs.array.a", "if TYPE_CHECKING:\n    from orionfs.fuse import tree", "array may not import fuse"),
        ("orionfs.array.a", "from ..monitor import events", "array may not import monitor"),
        ("orionfs.array.a", "import orionfs.surprise", "no place"),
        ("orionfs.manager", "from orionfs.testing.ram import RamDevice", "for tests"),
        ("orionfs.manager", "import backends", "second copy"),
        ("tests.units.a", "from tools import x", "second copy"),
        ("orionfs.fuse.tree", "import pyfuse3", "pyfuse3 may not"),
        ("orionfs.layers.crypt", "import cryptography.hazmat", "cryptography may not"),
        ("orionfs.manager", "try:\n    import requests\nexcept ImportError:\n    raise", "requests may not"),
    ],
)
def test_a_wrong_import_is_found(name, text, word):
    assert any(word in problem for problem in rules.wrong_imports(parse(name, text)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("orionfs.array.a", "import os\nfrom orionfs.units import MIB\nfrom . import b\nfrom .b import c\nimport trio"),
        ("orionfs.kernels.xts", "from cryptography.hazmat import x\nimport numpy as np"),
        ("orionfs.fuse.binding", "import pyfuse3"),
        ("orionfs.tools.x", "from orionfs import __version__"),
        ("tests.units.a", "from orionfs.testing.ram import RamDevice\nimport pytest"),
    ],
)
def test_a_right_import_is_not(name, text):
    assert rules.wrong_imports(parse(name, text)) == []


def test_a_heavy_import_is_found_through_others_but_not_inside_functions_or_for_types():
    texts = {
        "orionfs": "",
        "orionfs.a": "from orionfs.b import c",
        "orionfs.b": "import orionfs.d",
        "orionfs.d": "try:\n    import numpy.linalg\nexcept ImportError:\n    raise",
        "orionfs.e": "if TYPE_CHECKING:\n    import trio\ndef f():\n    import trio",
        "orionfs.f": "class A:\n    import trio",
    }
    modules = {name: parse(name, text, package=name == "orionfs") for name, text in texts.items()}
    assert rules.heavy_imports("orionfs.a", modules) == ["orionfs.a imports numpy, by way of orionfs.d"]
    assert rules.heavy_imports("orionfs.e", modules) == []
    assert rules.heavy_imports("orionfs.f", modules)


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nx = t.monotonic",
        "from time import monotonic\nmonotonic()",
        "import os\nos.urandom(4)",
        "from os import urandom\nurandom(4)",
        "import random\nrandom.random()",
        "from random import choice\nchoice([1])",
        "import secrets\nsecrets.token_bytes()",
        "import threading\nthreading.Lock()",
        "import trio\nasync def f():\n    await trio.to_thread.run_sync(f)",
        "import trio\nasync def f():\n    await trio.sleep(1)",
        "from trio import sleep\nasync def f():\n    await sleep(1)",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.now()",
        "import uuid\nuuid.uuid4()",
        "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor()",
    ],
)
def test_a_way_around_the_environment_is_found(text):
    assert rules.around_the_seams(parse("orionfs.array.a", text))


def test_the_seams_and_seeded_generators_are_let_be():
    assert rules.around_the_seams(parse("orionfs.clock", "import time\ntime.time_ns()")) == []
    assert rules.around_the_seams(parse("orionfs.clock", "import os\nos.urandom(1)"))
    assert rules.around_the_seams(parse("orionfs.testing.a", "import random\nrandom.Random(3).random()")) == []
    assert rules.around_the_seams(parse("orionfs.a", "import datetime\ndatetime.datetime(2000, 1, 1)")) == []
    assert rules.around_the_seams(parse("orionfs.a", "time = 3\ntime.x\nself.clock.sleep(1)")) == []


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    f()\nexcept:\n    raise",
        "try:\n    f()\nexcept OSError:\n    pass",
        "try:\n    f()\nexcept OSError:\n    ...",
        "try:\n    f()\nexcept Exception:\n    x = 1",
        "try:\n    f()\nexcept (OSError, BaseException):\n    return_ = 1",
        "with suppress(Exception):\n    f()",
        "with contextlib.suppress(OSError, OrionError):\n    f()",
        "def f():\n    raise NotImplemented" + "Error",
    ],
)
def test_a_stub_or_a_swallowed_exception_is_found(text):
    assert rules.stubs_and_swallowing(parse("orionfs.a", text))


def test_an_exception_that_is_dealt_with_is_let_be():
    text = "try:\n    f()\nexcept OSError:\n    g()\ntry:\n    f()\nexcept BaseException:\n    g()\n    raise\n"
    text += "try:\n    f()\nexcept BrokenPipeError:\n    pass  # whoever asked is gone\n"
    assert rules.stubs_and_swallowing(parse("orionfs.a", text + "with suppress(OSError):\n    f()")) == []


def test_what_is_too_long_is_found():
    assert rules.too_long(parse("a", "x = 1\n" * 601))
    assert rules.too_long(parse("a", "def f():\n" + "    x = 1\n" * 60))
    assert not rules.too_long(parse("a", "def f():\n" + "    x = 1\n" * 59 + "x = 1\n" * 500))


def test_words_for_later_are_found():
    for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"):
        assert rules.left_for_later("a", f"x = 1\n# {word}: later")
    assert not rules.left_for_later("a", "todos are for others; XXXL")


def test_a_missing_docstring_is_found():
    contracts = rules.documented_methods([parse("a", 'class A(abc.ABC):\n    def read(self):\n        """Reads."""')])
    text = (
        '"""A module."""\nclass B(A):\n    """B."""\n    def read(self): ...\n    def other(self): ...\ndef f(): ...\n'
    )
    found = rules.without_docstring(parse("a", text), contracts, whole=True)
    assert [problem.split(": ")[1] for problem in found] == ["B.other has no docstring", "f has no docstring"]
    assert rules.without_docstring(parse("a", "x = 1"), set(), whole=False)
    assert not rules.without_docstring(parse("a", ""), set(), whole=True)


def test_prints_names_io_and_blanket_exceptions_are_found():
    assert rules.prints(parse("a", "print(1)"))
    assert rules.poor_names(parse("a", "class RaidManager: ...\nclass AdvancedRaid: ..."))
    assert not rules.poor_names(parse("a", "class StorageManager: ..."))
    assert rules.does_io(parse("a", "import os"))
    assert rules.does_io(parse("a", "async def f(): ..."))
    assert rules.unexplained_exceptions(parse("a", "x = 1  # no" + "qa"))
    assert rules.unexplained_exceptions(parse("a", "x = 1  # type: ign" + "ore"))
    assert not rules.unexplained_exceptions(parse("a", "x = 1  # no" + "qa: E501"))
