"""Small OpenVINO graphs, an operator or two each: what whoever follows a graph must follow rightly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from exact import in_f32

Array = np.ndarray[Any, Any]
Body = Callable[[Any], Any]
COUNT = 3  # images in a batch: not what the graph is made for


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return rng().normal(size=shape).astype(np.float32)


def ints(*values: int) -> Any:
    return op.constant(np.array(values, np.int64))


def graph_of(body: Body, shape: tuple[int, ...] = (1, 8, 7, 6), *, batch: int = 1) -> ov.Model:
    """A graph of one float input, `image`; its first size is 1, or unknown where `batch` is -1."""
    image = op.parameter([batch, *shape[1:]], ov.Type.f32, name="image")
    image.output(0).set_names({"image"})
    return with_outputs(image, body(image))


def with_outputs(image: Any, *nodes: Any) -> ov.Model:
    for i, node in enumerate(nodes):
        output = node if isinstance(node, ov.Output) else node.output(0)
        output.set_names({"features" if i == 0 else f"other{i}"})
    return ov.Model(list(nodes), [image], "small")


def run_graph(graph: ov.Model, images: Array) -> Array:
    """By OpenVINO, one image at a time."""
    compiled = in_f32(graph)
    return np.concatenate([np.atleast_1d(compiled([image[None]])["features"]) for image in images])


def conv(
    *size: int,
    strides: tuple[int, ...] = (1, 1),
    pads: tuple[list[int], list[int]] = ([0, 0], [0, 0]),
    dilations: tuple[int, ...] = (1, 1),
    auto_pad: str = "explicit",
) -> Body:
    function = op.group_convolution if len(size) - len(strides) == 3 else op.convolution
    kernel = op.constant(normal(*size))
    return lambda x: function(x, kernel, list(strides), *pads, list(dilations), auto_pad=auto_pad)


CONVOLUTIONS = {
    "valid": conv(5, 8, 3, 2, auto_pad="valid"),
    "explicit": conv(5, 8, 3, 3, strides=(2, 2), pads=([1, 1], [1, 1])),
    "lopsided": conv(5, 8, 3, 3, strides=(2, 1), pads=([0, 2], [3, 1])),
    "same_upper": conv(5, 8, 3, 3, strides=(2, 2), auto_pad="same_upper"),
    "same_lower": conv(5, 8, 4, 2, strides=(2, 2), auto_pad="same_lower"),
    "dilated": conv(5, 8, 3, 2, pads=([2, 2], [2, 2]), dilations=(2, 3)),
    "dilated and strided": conv(5, 8, 3, 2, strides=(2, 2), pads=([2, 1], [2, 1]), dilations=(2, 2)),
    "dilated, strided, same": conv(5, 8, 2, 2, strides=(2, 2), dilations=(2, 2), auto_pad="same_upper"),
    "kernel 1": conv(9, 8, 1, 1),
}
GROUPS = {
    "depthwise": conv(8, 1, 1, 3, 3, strides=(2, 2), auto_pad="same_upper"),
    "depthwise, explicit": conv(8, 1, 1, 3, 3, strides=(2, 2), pads=([1, 1], [1, 1])),
    "depthwise, two each": conv(8, 2, 1, 3, 3, pads=([1, 1], [1, 1])),
    "depthwise, uneven strides": conv(8, 1, 1, 3, 3, strides=(2, 1), pads=([1, 1], [1, 1])),
    "depthwise, dilated": conv(8, 1, 1, 3, 3, pads=([2, 2], [2, 2]), dilations=(2, 2)),
    "two groups": conv(2, 3, 4, 3, 3, strides=(2, 2), pads=([1, 1], [1, 1])),
}


def pooled(kind: str, *, kernel: int = 3, strides: tuple[int, int] = (2, 2), **options: Any) -> Body:
    begin, end = options.get("pads", ([0, 0], [0, 0]))
    rounding, auto_pad = options.get("rounding", "floor"), options.get("auto_pad", "explicit")
    if kind == "max":
        return lambda x: op.max_pool(
            x, list(strides), [1, 1], begin, end, [kernel] * 2, rounding, auto_pad
        ).output(0)
    exclude = options.get("exclude", True)
    return lambda x: op.avg_pool(x, list(strides), begin, end, [kernel] * 2, exclude, rounding, auto_pad)


POOLS: dict[str, dict[str, Any]] = {
    "valid": {"auto_pad": "valid"},
    "explicit": {"pads": ([1, 1], [1, 1])},
    "lopsided": {"pads": ([0, 1], [2, 0]), "strides": (2, 1)},
    "same_upper": {"auto_pad": "same_upper"},
    "same_lower": {"auto_pad": "same_lower", "kernel": 2},
    "ceil": {"rounding": "ceil"},
    "ceil and borders": {"rounding": "ceil", "pads": ([1, 1], [1, 1]), "strides": (3, 2)},
}


def after_conv(body: Body) -> Body:
    """After a convolution, so that the tensor lies channels last."""
    first = conv(8, 8, 1, 1)
    return lambda x: body(first(x))


ROW = op.constant(normal(1, 8, 1, 1))
POSITIVE = op.constant(np.abs(normal(8, 1, 1)) + 0.5)
EACH: dict[str, Body] = {
    "add": lambda x: op.add(x, ROW),
    "subtract": lambda x: op.subtract(ROW, x),
    "multiply": lambda x: op.multiply(x, ROW),
    "divide": lambda x: op.divide(x, POSITIVE),
    "squared difference": lambda x: op.squared_difference(x, ROW),
    "minimum": lambda x: op.minimum(x, ROW),
    "maximum": lambda x: op.maximum(x, ROW),
    "power": lambda x: op.power(op.exp(x), op.constant(np.float32(0.25))),
    "power -1": lambda x: op.power(op.exp(x), op.constant(np.float32([-1]))),
    "power 2": lambda x: op.power(x, op.constant(np.float32(2))),
    "power of a row": lambda x: op.power(op.exp(x), POSITIVE),
    "sqrt": lambda x: op.sqrt(op.exp(x)),
    "exp": op.exp,
    "negative": op.negative,
    "tanh": op.tanh,
    "clamp to 6": lambda x: op.clamp(x * op.constant(np.float32(9)), 0.0, 6.0),
    "clamp": lambda x: op.clamp(x, -0.5, 0.7),
    "relu": op.relu,
    "sigmoid": op.sigmoid,
    "swish": op.swish,
    "swish with a factor": lambda x: op.swish(x, op.constant(np.float32(1.7))),
    "hswish": lambda x: op.hswish(x * op.constant(np.float32(3))),
    "hsigmoid": lambda x: op.hsigmoid(x * op.constant(np.float32(3))),
    "erf": op.erf,
    "gelu": lambda x: op.gelu(x, "erf"),
    "gelu by tanh": lambda x: op.gelu(x, "tanh"),
    "softmax": lambda x: op.softmax(x, 1),
    "softmax from the end": lambda x: op.softmax(x, -1),
    "convert": lambda x: op.convert(x, ov.Type.f32),
    "mean": lambda x: op.reduce_mean(x, ints(2, 3), False),
    "mean, axes kept": lambda x: op.reduce_mean(x, ints(-1, 2), True),
    "mean of channels": lambda x: op.reduce_mean(x, ints(1), False),
    "mean of all axes": lambda x: op.reduce_mean(x, ints(0, 2, 3), True),
    "sum": lambda x: op.reduce_sum(x, ints(3), False),
    "max": lambda x: op.reduce_max(x, ints(2, 3), True),
    "concat": lambda x: op.concat([x, op.relu(x), op.constant(normal(1, 2, 7, 6))], 1),
    "concat of a constant in width": lambda x: op.concat([op.constant(normal(1, 8, 7, 1)), x], -1),
    "pad": lambda x: op.pad(x, ints(0, 1, 2, 0), ints(0, 0, 1, 3), "constant", op.constant(np.float32(0.5))),
    "pad, cutting": lambda x: op.pad(x, ints(0, 0, -2, 1), ints(0, 0, 1, -1), "constant"),
    "pad by edge": lambda x: op.pad(x, ints(0, 0, 2, 1), ints(0, 0, 1, 3), "edge"),
    "pad by reflection": lambda x: op.pad(x, ints(0, 1, 2, 1), ints(0, 0, 1, 3), "reflect"),
    "pad by mirror": lambda x: op.pad(x, ints(0, 0, 2, 1), ints(0, 2, 1, 3), "symmetric"),
    "slice": lambda x: op.slice(x, ints(1, -3), ints(7, 99), ints(2, 1), ints(1, 3)),
    "slice backwards": lambda x: op.slice(x, ints(-1, 5), ints(-99, 0), ints(-1, -2), ints(1, 2)),
    "slice of all axes": lambda x: op.slice(x, ints(0, 1, 0, 2), ints(1, 5, 9, 4), ints(1, 1, 2, 1)),
    "reshape": lambda x: op.reshape(x, ints(1, 8, 42), False),
    "reshape, special zero": lambda x: op.reshape(x, ints(0, -1), True),
    "reshape away from the batch": lambda x: op.reshape(x, ints(8, 42), False),
    "reshape there and back": lambda x: op.reshape(
        op.softmax(op.reshape(x, ints(16, 21), False), 1), ints(1, 336), False),
    "squeeze": lambda x: op.squeeze(op.reduce_mean(x, ints(2, 3), True), ints(2, 3)),
    "unsqueeze": lambda x: op.unsqueeze(x, ints(2, 4)),
    "transpose": lambda x: op.transpose(x, ints(0, 2, 3, 1)),
    "transpose, other": lambda x: op.transpose(x, ints(0, 3, 1, 2)),
    "transpose across the batch": lambda x: op.transpose(x, ints(2, 0, 3, 1)),
    "transpose back to front": lambda x: op.transpose(x, ints()),
    "gather": lambda x: op.gather(x, ints(5, 0, -2), op.constant(np.int64(1))),
    "gather one": lambda x: op.gather(x, op.constant(np.int64(3)), op.constant(np.int64(-1))),
    "gather the image": lambda x: op.gather(x, op.constant(np.int64(0)), op.constant(np.int64(0))),
    "matmul": lambda x: op.matmul(x, op.constant(normal(6, 5)), False, False),
    "matmul, turned": lambda x: op.matmul(x, op.constant(normal(4, 7)), True, True),
    "matmul from the left": lambda x: op.matmul(op.constant(normal(4, 7)), x, False, False),
    "matmul of a batch": lambda x: op.matmul(x, op.constant(normal(1, 8, 6, 5)), False, False),
    "matmul with itself": lambda x: op.matmul(x, op.relu(x), False, True),
    "matmul by a vector": lambda x: op.matmul(x, op.constant(normal(6)), False, False),
}  # fmt: skip
