"""Fixtures of the tests of backends."""

import pytest

from tests.devices.kit import SIZE


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "d0.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def on_medium(monkeypatch):
    """Make the filesystem of the next file look like another."""

    def choose(medium):
        monkeypatch.setattr("orionfs.backends.file.medium_of", lambda descriptor: medium)

    return choose
