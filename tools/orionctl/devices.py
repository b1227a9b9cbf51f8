"""What people call devices on the command line, and what the configuration calls them."""

from __future__ import annotations

import os
from pathlib import Path

from orionfs.backends import parse_url
from orionfs.errors import UsageError


def label_of(text: str, folder: Path) -> str:
    """The name that a configuration in *folder* has for the device that *text* means.

    As in the file, a relative path is relative to *folder*; but one that is only there as seen from the current folder
    means that, and so does one that begins with ``./`` or ``../``.  What lies in *folder* gets a relative name.  URLs
    stay as they are.  Raises :class:`~orionfs.errors.UsageError` if two different files can be meant.
    """
    if parse_url(text).scheme != "file" or text.startswith("file:"):
        return text
    here, there = Path.cwd() / text, folder / text
    if text.startswith("/"):
        chosen = Path(text)
    elif text.split("/")[0] in (".", ".."):
        chosen = here
    elif there.exists() and here.exists() and not here.samefile(there):
        hint = f"write {there} or ./{text}"
        raise UsageError(f"{text} may be the file in {folder} or the one in the current folder", hint=hint)
    else:
        chosen = here if here.exists() and not there.exists() else there
    path = os.path.normpath(chosen)
    return os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else path


def member_name(text: str, folder: Path) -> str:
    """As :func:`label_of` for a member that is there: a plain word may also be its slot, or its last part."""
    return label_of(text, folder) if "/" in text else text
