"""The kernel's MD and OrionFS take each other's arrays: every level and layout, both ways, and after rough endings.

All arrays share two boots of the virtual machine: the first test takes all cases that were selected through all their
steps, and each test looks at the verdict on one.  ``python -m tests.campaigns.kernel_md`` prints them as a table.
"""

from __future__ import annotations

import faulthandler
import shutil

import pytest

from tests.interop.case import Case
from tests.interop.catalog import ending_cases, is_essential, table_cases
from tests.interop.laboratory import Laboratory
from tests.interop.vm import why_not

pytestmark = [pytest.mark.interop, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def parameters(cases: list[Case]):
    marks = {True: (), False: (pytest.mark.long,)}
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=case.name, marks=marks[is_essential(case)]) for case in cases]
    )


@pytest.fixture(scope="module")
def judged(request, tmp_path_factory):
    """All cases of this module that are going to be looked at, with the verdicts on them."""
    wanted = request.config.getoption("--long")
    items = [item for item in request.session.items if item.path == request.path]
    cases = [item.callspec.params["case"] for item in items if wanted or not item.get_closest_marker("long")]
    folder = tmp_path_factory.mktemp("kernel")
    faulthandler.cancel_dump_traceback_later()  # two boots take their time, and nothing hangs: both have a limit
    Laboratory(folder, cases, every=wanted).run()
    yield
    shutil.rmtree(folder)


@pytest.mark.usefixtures("judged")
@parameters(table_cases())
def test_each_reads_checks_and_writes_what_the_other_filled(case):
    assert not case.failure, case.failure


@pytest.mark.usefixtures("judged")
@parameters(ending_cases())
def test_each_goes_on_with_what_the_other_left_in_the_middle(case):
    assert not case.failure, case.failure
