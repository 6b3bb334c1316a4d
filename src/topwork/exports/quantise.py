"""8-bit numbers by NNCF's post-training quantisation: https://github.com/openvinotoolkit/nncf."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

from topwork.errors import MissingExtra


def quantised(model: Any, inputs: Sequence[Any], *, kept: Sequence[str]) -> Any:
    """An OpenVINO graph or an ONNX model that stores and computes convolutions and matrix products in 8 bits.

    Weights use half of their range: processors without instructions for it (VNNI) add products in pairs, in 16 bits,
    which overflow else; and a file should say the same everywhere.

    Args:
        model: its nodes are named.
        inputs: what it takes, to see how large its numbers become.
        kept: the names of nodes that stay as they are.

    Raises:
        MissingExtra: nncf is not installed.
    """
    try:
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix
    except ModuleNotFoundError as error:
        raise MissingExtra("8-bit numbers in a file", "export") from error
    nncf.set_log_level(logging.ERROR)
    # Its progress bars would stand in the middle of what the command prints.
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=list(kept), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
