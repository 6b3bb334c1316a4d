"""Curves for TensorBoard: a training and a validation run beside each other, under the same names.

Writing needs `tensorboardX` alone; `tensorboard --logdir RUN/tensorboard` (another package) shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FLUSH_S = 5  # how far behind an open TensorBoard page may be


class ScalarLog:
    """What `scalars` opens: two runs, `train` and `validation`, each made when first written to."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self._folder = folder
        self._open_files = open_files
        self._writers: dict[str, SummaryWriter] = {}

    def train(self, step: int, **values: float) -> None:
        """Add one point to each named curve of the training run: `log.train(10, loss=0.4, accuracy=0.8)`."""
        self._write("train", step, values)

    def validation(self, step: int, **values: float) -> None:
        """Add one point to each named curve of the validation run."""
        self._write("validation", step, values)

    def _write(self, run: str, step: int, values: dict[str, float]) -> None:
        if run not in self._writers:
            from tensorboardX import SummaryWriter

            # A file's name holds the second it was made in. With the process too, and the count of files
            # there, a training that goes on at once doesn't write over what the one before had written.
            folder = self._folder / run
            made = len(list(folder.glob("events.out.*")))
            writer = SummaryWriter(
                str(folder), flush_secs=FLUSH_S, filename_suffix=f".{os.getpid()}.{made}", write_to_disk=True
            )
            self._writers[run] = self._open_files.enter_context(writer)
        for name, value in values.items():
            self._writers[run].add_scalar(name, float(value), step)


@contextmanager
def scalars(folder: str | Path) -> Iterator[ScalarLog]:
    """Write curves to `folder`/train and `folder`/validation; all is on the disk when the block ends.

    Files already there are kept: a training that goes on adds to its curves.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run, scalars(Path(run, "tensorboard")) as log:
    ...     log.train(10, loss=0.4, accuracy=0.8)
    ...     log.validation(41, loss=0.5, accuracy=0.7)
    """
    with ExitStack() as open_files:
        yield ScalarLog(Path(folder), open_files)
