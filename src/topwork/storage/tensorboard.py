"""Write scalars for TensorBoard as two runs, train and validation, with the same curve names.

Writing needs only `tensorboardX`. To view them: `tensorboard --logdir RUN/tensorboard` (a separate package).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FLUSH_S = 5  # maximum delay until new points appear in TensorBoard


class ScalarLog:
    """The runs `train` and `validation`, each created when it is first written to. Opened by `scalars`."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self._folder = folder
        self._open_files = open_files
        self._writers: dict[str, SummaryWriter] = {}

    def train(self, step: int, **values: float) -> None:
        """Add a point to each named curve of the training run: `log.train(10, loss=0.4, accuracy=0.8)`."""
        self._write("train", step, values)

    def validation(self, step: int, **values: float) -> None:
        """Add a point to each named curve of the validation run."""
        self._write("validation", step, values)

    def _write(self, run: str, step: int, values: dict[str, float]) -> None:
        if run not in self._writers:
            from tensorboardX import SummaryWriter

            # File names contain the time in seconds. The process id and the number of existing files make them
            # unique, so a training that is resumed at once doesn't overwrite the previous file.
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
    """Write curves to `folder`/train and `folder`/validation; everything is on disk when the block ends.

    Existing files are kept: a resumed training extends its curves.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run, scalars(Path(run, "tensorboard")) as log:
    ...     log.train(10, loss=0.4, accuracy=0.8)
    ...     log.validation(41, loss=0.5, accuracy=0.7)
    """
    with ExitStack() as open_files:
        yield ScalarLog(Path(folder), open_files)
