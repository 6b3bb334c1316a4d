"""The environment that the classic program runs in: its own, since Topwork's has no TensorFlow; and how to run in it.

Made once, in benchmarks/.venv-classic, with the interpreter that runs the benchmark; used again while REQUIREMENTS
stay as they are. So is the one of another program (peer.py).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.options import ROOT

FOLDER = ROOT / "benchmarks" / ".venv-classic"
REQUIREMENTS = (
    "tensorflow-cpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "tensorflow; sys_platform != 'linux' or platform_machine != 'x86_64'",
    "tf_keras",  # Keras 2, on which hub.KerasLayer is built
    "tensorflow_hub==0.16.1",
    "tensorboard",  # tf.summary.scalar needs it
    "setuptools<82",  # the last with pkg_resources, which tensorflow_hub imports
)


def make_environment(folder: Path = FOLDER, requirements: Sequence[str] = REQUIREMENTS) -> Path:
    """The path of the environment's interpreter, made ready if it is not there yet.

    Raises:
        subprocess.CalledProcessError: venv or pip failed; it has printed why.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / "requirements.txt"  # written last: without it the environment is half made
    wanted = "\n".join(requirements) + "\n"
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    print(f"making {folder}: it is large, this takes some minutes", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *requirements], check=True, stdout=sys.stderr)
    done.write_text(wanted, encoding="utf-8")
    return python


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """What a program prints on standard output.

    Raises:
        RuntimeError: it failed; the text ends with the last lines of its standard error.
    """
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-20:])
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{last}")
    return done.stdout
