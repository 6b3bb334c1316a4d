"""Whether a model in a single file is complete, as its own reader sees it."""

from __future__ import annotations

from pathlib import Path

from topwork.backbones.hub.unpack import DamagedError, check_zip

SUFFIXES = (".onnx", ".tflite", ".keras")
TFLITE_MAGIC = b"TFL3"  # at byte 4


def check_whole(path: Path, *, shown: str) -> None:
    """Raise `DamagedError` where a file is not a complete `.onnx`, `.tflite` or `.keras`, as its suffix says it is.

    OpenVINO parses the first two, whether or not it knows their operators. A Keras file is a zip with checksums.
    """
    suffix = path.suffix.lower()
    if suffix == ".keras":
        if "config.json" not in check_zip(path, shown=shown):
            raise DamagedError(f"{shown}: expected a complete .keras file; it holds no config.json")
        return
    from openvino.frontend import FrontEndManager

    reader = FrontEndManager().load_by_framework(suffix.removeprefix("."))
    reason = "its bytes are not those of a model"
    try:
        if reader.supported(str(path)):
            reader.load(str(path))
            return
    except Exception as error:  # OpenVINO's failures have no common base
        reason = str(error).strip().rpartition("\n")[2]
    raise DamagedError(f"{shown}: expected a complete {suffix} file; {reason}")
