"""Names of new folders."""

from pathlib import Path

import pytest

from zoo.core.errors import ConfigError
from zoo.io.folders import make_folder


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_written(tmp_path: Path, cli) -> None:
    """Linux allows any bytes; TensorBoard and YAML do not."""
    with pytest.raises(ConfigError, match="its name is not UTF-8"):
        make_folder(tmp_path / "deep" / "a\udcff")
    assert not (tmp_path / "deep").exists()
    told = cli("model=vae", "trainer=smoke", "hydra.run.dir=run\udcff")
    assert told.code == 1
    assert "its name is not UTF-8. Choose another one" in told.err
    assert "Traceback" not in told.err
    make_folder(tmp_path / "été 写真")
    assert (tmp_path / "été 写真").is_dir()
