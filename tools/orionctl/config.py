"""Checks a configuration, shows it, or says where it is.

SPEC is a file, or a folder that holds orionfs.toml; without it, the configuration of the mount is meant.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from orionfs.config.check import Finding, check_members
from orionfs.config.load import examine_spec, load_spec, spec_path
from orionfs.config.spec import Spec
from orionfs.errors import OrionError
from orionfs.tools.orionctl.mounts import ask, chosen_mount
from orionfs.tools.orionctl.output import Output

EPILOG = "check shows every problem with its line; exit status 0 fine (warnings too), else that of the first problem"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("check", "show", "path"), help="what to do")
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="a file or a folder (default: that of the mount)")


def run(arguments: argparse.Namespace, output: Output) -> int:
    return {"check": _check, "show": _show, "path": _path}[arguments.verb](arguments, output)


def _path(arguments: argparse.Namespace, output: Output) -> int:
    file = _file(arguments)
    output.result("config", {"path": str(file)}, str(file))
    return 0


def _show(arguments: argparse.Namespace, output: Output) -> int:
    """The text as it is; in JSON what it means.  Of a mount: what its daemon started from."""
    if arguments.spec is None:
        answer = ask(chosen_mount(arguments), "config")
        output.result("config", {"path": answer["path"], "text": answer["text"]}, answer["text"])
        return 0
    spec = load_spec(Path(arguments.spec))
    text = spec.path.read_bytes().decode()
    output.result("config", {"path": str(spec.path), "text": text, **_values(spec)}, text)
    return 0


def _check(arguments: argparse.Namespace, output: Output) -> int:
    file = _file(arguments)
    spec, problems = examine_spec(file)
    findings = [Finding("problem", problem.line, problem) for problem in problems]
    if spec is not None:
        findings += check_members(spec)
    listed = [_finding(finding, file) for finding in findings]
    first = next((finding.error for finding in findings if finding.severity == "problem"), None)
    text = "\n".join(f"{'warning: ' if entry['severity'] == 'warning' else ''}{_sentence(entry)}" for entry in listed)
    values = {"path": str(file), "valid": first is None, "findings": listed}
    output.result("config", values, text if text else f"{file}: no problems found")
    return 0 if first is None else first.exit_code


def _finding(finding: Finding, file: Path) -> dict[str, Any]:
    error: OrionError = finding.error
    return {
        "severity": finding.severity,
        "path": str(file),
        "line": finding.line,
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
    }


def _sentence(entry: dict[str, Any]) -> str:
    line = f":{entry['line']}" if entry["line"] else ""
    hint = f"; {entry['hint']}" if entry["hint"] else ""
    return f"{entry['path']}{line}: {entry['message']}{hint}"


def _file(arguments: argparse.Namespace) -> Path:
    return spec_path(Path(arguments.spec)) if arguments.spec is not None else chosen_mount(arguments).spec


def _values(spec: Spec) -> dict[str, Any]:
    arrays = [dataclasses.asdict(array) for array in spec.arrays]
    return {"arrays": arrays, "mount": dataclasses.asdict(spec.mount)}
