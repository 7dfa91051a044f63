"""Bad input of every kind either loads or is refused in one sentence."""

import pytest

from tests.security.fuzz import LOADERS, fuzz


@pytest.mark.parametrize("loader", LOADERS)
def test_bad_input_works_or_is_refused(loader: str) -> None:
    tally = fuzz(loader, 40)
    assert not tally.crashed
    assert tally.refused > 5, "the input is bad"


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_much_bad_input_works_or_is_refused(loader: str) -> None:
    assert not fuzz(loader, 400).crashed
