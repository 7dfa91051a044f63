"""An interrupt while the command is imported."""

import subprocess
import sys

CODE = """
import runpy, sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "zoo.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
runpy.run_module("zoo", run_name="__main__")
"""


def test_it_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "zoo: stopped.\n"
