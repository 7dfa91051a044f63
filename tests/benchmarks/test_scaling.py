"""Growth: exponents in closed form."""

import pytest

from zoo.benchmarks.scaling import exponents, log_log_slope, parse
from zoo.core.errors import ZooError


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, -0.5])
def test_the_slope_of_a_power_is_its_exponent(power: float) -> None:
    x = [1.0, 2.0, 4.0, 16.0]
    assert log_log_slope(x, [3.0 * v**power for v in x]) == pytest.approx(power)


def test_a_constant_part_flattens_the_slope() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    assert 0 < log_log_slope(x, [10 + v for v in x]) < 0.5


def test_a_setting_and_its_values() -> None:
    assert parse("data.batch_size=32,64,128") == ("data.batch_size", [32.0, 64.0, 128.0])
    for bad in ("data.batch_size", "data.batch_size=32", "data.batch_size=a,b", "=1,2", "model.width=0,2"):
        with pytest.raises(ZooError, match="Write --grow"):
            parse(bad)


def test_time_memory_and_arithmetic_have_exponents() -> None:
    rows = [{"ms": 2.0 * v, "step_mb": v**2, "operations": v} for v in (1, 2, 4)]
    x = [1.0, 2.0, 4.0]
    assert exponents(x, rows) == pytest.approx({"ms": 1.0, "step_mb": 2.0, "operations": 1.0})
