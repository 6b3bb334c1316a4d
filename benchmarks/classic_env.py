"""The environment that the classic program runs in: its own, since Topwork's has no TensorFlow.

Made once, in benchmarks/.venv-classic, with the interpreter that runs the benchmark; used again while REQUIREMENTS
stay as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / ".venv-classic"
REQUIREMENTS = (
    "tensorflow-cpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "tensorflow; sys_platform != 'linux' or platform_machine != 'x86_64'",
    "tf_keras",  # Keras 2, on which hub.KerasLayer is built
    "tensorflow_hub==0.16.1",
    "setuptools<82",  # the last with pkg_resources, which tensorflow_hub imports
)


def make_environment() -> Path:
    """The path of the environment's interpreter, made ready if it is not there yet.

    Raises:
        subprocess.CalledProcessError: venv or pip failed; it has printed why.
    """
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = FOLDER / "requirements.txt"  # written last: without it the environment is half made
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    print(f"making {FOLDER}: TensorFlow is large, this takes some minutes", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *REQUIREMENTS], check=True, stdout=sys.stderr)
    done.write_text(wanted, encoding="utf-8")
    return python
