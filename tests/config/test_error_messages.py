"""Errors of Hydra in one sentence."""

from hydra.errors import InstantiationException

from zoo.config.error_messages import to_user_error


def test_a_library_that_cannot_be_imported_is_named() -> None:
    """Hydra reports the class that it was looking for, and hides the cause."""
    try:
        try:
            try:
                raise ImportError("libblas.so: failed to map segment from shared object.")
            except ImportError as first:
                raise ImportError("Importing the numpy C-extensions failed.") from first
        except ImportError as second:
            raise InstantiationException("Error locating target 'zoo.training.run_dir.MakeRunFolder'.") from second
    except InstantiationException as error:
        told = to_user_error(error)
    assert str(told).startswith("a library cannot be imported (libblas.so: failed to map segment")
    assert "Error locating" not in str(told)
    assert "Error locating" in str(to_user_error(InstantiationException("Error locating target 'a.b'"))), (
        "without a cause"
    )
