"""Resizing as matrix products: every mode of OpenVINO's Interpolate is linear and separable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from topwork.errors import TopworkError
from topwork.graphs.compile import compile_model
from topwork.graphs.trainable.plan import Array, Shape

OPTIONS = ("coordinate_transformation_mode", "nearest_mode", "antialias", "cube_coeff")


def matrices(
    attributes: Mapping[str, Any], known: Sequence[Array], shape: Shape, result: Shape
) -> dict[int, Array]:
    """For each axis that changes, a matrix float32 (size before, size after) to multiply with from the right.

    `known` are the inputs after the first: sizes or scales (version 11) or both (version 4), then the axes, if any.

    Raises:
        TopworkError: it pads, or is of the first version.
    """
    if "coordinate_transformation_mode" not in attributes:
        raise TopworkError("it is of OpenVINO's first operation set")
    if any([*attributes["pads_begin"], *attributes["pads_end"]]):
        raise TopworkError("it pads the picture before resizing")
    scales = next((some.ravel() for some in known if some.dtype.kind == "f"), None)
    given = len(known) > 1 and known[-1].dtype.kind in "iu"
    axes = [int(axis) % len(shape) for axis in known[-1].ravel()] if given else list(range(len(shape)))
    by_scale = str(attributes["shape_calculation_mode"]) == "scales" and scales is not None
    options = tuple((name, attributes[name]) for name in OPTIONS)
    found = {}
    for number, axis in enumerate(axes):
        scale = float(scales[number]) if by_scale and scales is not None else None
        if shape[axis] != result[axis] or scale not in (None, 1):
            found[axis] = _matrix(str(attributes["mode"]), options, shape[axis], result[axis], scale)
    return found


@lru_cache(maxsize=100)
def _matrix(
    mode: str, options: tuple[tuple[str, Any], ...], size: int, length: int, scale: float | None
) -> Array:
    """OpenVINO's result for the rows of the identity, as images of one row (two axes, as some modes need both)."""
    import openvino as ov
    from openvino import opset13 as op

    rows = op.parameter([size, 1, 1, size], ov.Type.f32)
    sides = op.constant(np.array([1, length]) if scale is None else np.array([1, scale], np.float32))
    by = "sizes" if scale is None else "scales"
    node = op.interpolate(rows, sides, mode, by, axes=op.constant(np.array([2, 3])), **dict(options))
    compiled = compile_model(ov.Model([node], [rows]), "f32", threads=1)
    found = compiled(np.eye(size, dtype=np.float32).reshape(size, 1, 1, size))[0]
    return np.array(found).reshape(size, length)
