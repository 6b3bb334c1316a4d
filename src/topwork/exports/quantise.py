"""Post-training quantisation to int8 by NNCF: https://github.com/openvinotoolkit/nncf."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

from topwork.errors import MissingExtra


def quantised(model: Any, inputs: Sequence[Any], *, kept: Sequence[str]) -> Any:
    """Quantise convolutions and matrix products of an OpenVINO or ONNX model to 8 bits.

    Weights use only half of their range. Processors without VNNI add pairs of products in 16 bits, which would
    overflow with the full range, and a file should give the same results everywhere.

    Args:
        model: the model, with named nodes.
        inputs: calibration inputs.
        kept: the names of nodes that are not quantised.

    Raises:
        MissingExtra: nncf is not installed.
    """
    try:
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix
    except ModuleNotFoundError as error:
        raise MissingExtra("the precision int8", "export") from error
    nncf.set_log_level(logging.ERROR)
    # Suppress its progress bars, which would be mixed with the command's output.
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=list(kept), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )
