"""The exception tree and its table."""

import errno
import os

import pytest

from orionfs import errors
from orionfs.errors import TABLE, ConfigError, DeviceError, MediaError, NoSpace, OrionError, from_oserror, outcome_of

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OrionError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_row_of_its_own(kind):
    assert kind in TABLE
    error = kind("it failed")
    assert os.strerror(error.errno)
    assert 1 <= error.exit_code <= 8, "0 is healthy"


def test_no_row_is_left_over():
    assert set(TABLE) == set(KINDS)


def test_a_subclass_goes_by_its_nearest_ancestor_and_a_stranger_by_the_root():
    class Special(NoSpace):
        pass

    assert outcome_of(Special) == TABLE[NoSpace]
    assert outcome_of(ZeroDivisionError) == TABLE[OrionError]


def test_the_text_is_one_sentence_with_its_hint():
    assert str(MediaError("it failed")) == "it failed"
    assert str(MediaError("it failed", hint="mend it")) == "it failed; mend it"


def test_a_configuration_error_says_where():
    assert str(ConfigError("no", hint="yes", path="a.toml", line=3)) == "a.toml:3: no; yes"
    assert str(ConfigError("no", path="a.toml")) == "a.toml: no"
    assert str(ConfigError("no", line=3)) == "no"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, errors.NoSpace),
        (errno.EDQUOT, errors.NoSpace),
        (errno.EFBIG, errors.NoSpace),
        (errno.EROFS, errors.ReadOnly),
        (errno.EACCES, errors.AccessRefused),
        (errno.EPERM, errors.AccessRefused),
        (errno.ENOENT, errors.NotFound),
        (errno.EBUSY, errors.InUse),
        (errno.ETIMEDOUT, errors.TimedOut),
        (errno.EIO, errors.MediaError),
        (errno.ENXIO, errors.MediaError),
    ],
)
def test_host_errors_become_ours(number, kind):
    error = from_oserror(OSError(number, os.strerror(number)), "write to d0.img")
    assert type(error) is kind
    assert str(error).startswith("cannot write to d0.img: ")


def test_a_host_error_without_a_number_is_translated_too():
    assert str(from_oserror(OSError("odd"), "open x")) == "cannot open x: odd"


def test_what_a_request_raises_is_a_device_error():
    for kind in (errors.MediaError, errors.NoSpace, errors.ReadOnly, errors.OutOfRange, errors.TimedOut):
        assert issubclass(kind, DeviceError)
