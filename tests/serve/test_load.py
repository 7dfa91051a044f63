"""A small load; `python -m tests.serve.load` sends a large one."""

import sys

import pytest

from tests.benchmarks.test_serving import saved
from tests.serve.load import Load, measure
from tests.serve.servers import language_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")


def test_vanished_clients_and_malformed_requests_leave_nothing(tmp_path):
    load = Load(300, 30, 30)
    found = measure(saved(language_model(), tmp_path), load)
    assert found["answers"] == {"200": 240, "400": 30, "vanished": 30}
    assert found["errors_5xx"] == 0
    assert found["all_ended"]
    sizes = found["mb_of_each_tenth"]
    assert len(sizes) == 10
    assert sizes[0] == pytest.approx(found["mb_after_a_tenth"], abs=1)
    assert sizes[-1] == pytest.approx(found["mb_at_the_end"], abs=1)
    assert found["mb_at_the_end"] < found["mb_after_a_tenth"] + 40, "allocators grow a little at first"
