"""Verbs of plug-ins: entry points of the group `zoo.commands`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def zoo_command(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "zoo", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def install(site: Path, entry_points: str) -> None:
    about = site / "greeting-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[zoo.commands]\n{entry_points}\n")
    (site / "greeting.py").write_text(
        'def greet(name: str, loud: bool = False) -> None:\n    """Greet."""\n    print(f"hello {name}" + "!" * loud)\n'
    )


def test_a_verb_of_a_plugin_has_arguments_and_help(tmp_path: Path) -> None:
    install(tmp_path, "greet = greeting:greet\nbroken = greeting:nothing\nlist = greeting:greet")
    done = zoo_command(tmp_path, "greet", "world", "--loud")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello world!\n"
    shown = zoo_command(tmp_path, "--help")
    assert "greet" in shown.stdout
    assert "'broken' of greeting:nothing is skipped" in shown.stderr
    assert "'list' of greeting:greet is skipped: it exists already" in shown.stderr
