"""A small vision transformer as an ONNX file, as Transformers' exporter lays one out; and the same in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WIDTH, PATCH_PX, SIZE_PX, BLOCKS = 8, 8, 32, 3
COUNT = (SIZE_PX // PATCH_PX) ** 2  # of patches
FREE = ("batch_size", "num_channels", "height", "width")


def weights(before: int = 1) -> dict[str, Array]:
    """`before`: how many tokens stand before the patches."""
    random = np.random.default_rng(0)
    draw = {
        "patch": random.normal(size=(WIDTH, 3, PATCH_PX, PATCH_PX)) / 8,
        "position": random.normal(size=(1, COUNT + before, WIDTH)),
        "pooler.weight": random.normal(size=(WIDTH, WIDTH)),
        "pooler.bias": random.normal(size=WIDTH),
    }
    if before:
        draw["first"] = random.normal(size=(1, before, WIDTH))
    for block in range(BLOCKS):
        draw[f"{block}.mix"] = (
            random.normal(size=(COUNT + before, COUNT + before)) / 4
        )  # in place of attention
        draw[f"{block}.up"] = random.normal(size=(WIDTH, 12)) / 2
        draw[f"{block}.down"] = random.normal(size=(12, WIDTH)) / 2
    return {name: value.astype(np.float32) for name, value in draw.items()}


def in_numpy(pixels: Array, before: int = 1) -> tuple[list[Array], Array]:
    """Of pixels (3, S, S): the tokens after each block, and the pooler's output before its tanh."""
    w = weights(before)
    side = SIZE_PX // PATCH_PX
    patches = pixels.reshape(3, side, PATCH_PX, side, PATCH_PX).transpose(1, 3, 0, 2, 4).reshape(COUNT, -1)
    x = patches @ w["patch"].reshape(WIDTH, -1).T
    if before:
        x = np.concatenate([w["first"][0], x])
    x = x + w["position"][0]
    after = []
    for block in range(BLOCKS):
        x = x + w[f"{block}.mix"] @ x
        x = x + np.maximum(x @ w[f"{block}.up"], 0) @ w[f"{block}.down"]
        after.append(x)
    return after, x[0] @ w["pooler.weight"] + w["pooler.bias"]


def write_onnx(
    path: Path,
    *,
    before: int = 1,
    outputs: Sequence[str] = ("last_hidden_state", "pooler_output"),
    tanh: bool = True,
    shape: Sequence[Any] = FREE,
    half: bool = False,
    text: bool = False,
) -> Path:
    """The file. `tanh`: whether the pooler ends in one; `text`: whether it takes words, too."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    kind, number = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    constants = {name: value.astype(number) for name, value in weights(before).items()}
    constants["shape"] = np.array([0, WIDTH, -1], np.int64)
    constants["zero"] = np.array(0, np.int64)
    nodes: list[Any] = []

    def add(operator: str, *inputs: str, **more: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"v{len(nodes)}"], **more))
        return str(nodes[-1].output[0])

    x = add("Conv", "pixel_values", "patch", strides=[PATCH_PX] * 2)
    x = add("Transpose", add("Reshape", x, "shape"), perm=[0, 2, 1])
    if before:
        x = add("Concat", "first", x, axis=1)
    x = add("Add", x, "position")
    for block in range(BLOCKS):
        x = add("Add", x, add("MatMul", f"{block}.mix", x))
        hidden = add("Relu", add("MatMul", x, f"{block}.up"))
        x = add("Add", x, add("MatMul", hidden, f"{block}.down"))
    made = {"last_hidden_state": x}
    pooled = add("Gemm", add("Gather", x, "zero", axis=1), "pooler.weight", "pooler.bias")
    made["pooler_output"] = add("Tanh", pooled) if tanh else pooled
    used = [helper.make_node("Identity", [made[name]], [name]) for name in outputs]
    shapes = {"last_hidden_state": ["batch_size", None, WIDTH], "pooler_output": ["batch_size", WIDTH]}
    inputs = [helper.make_tensor_value_info("pixel_values", kind, list(shape))]
    if text:
        inputs.insert(
            0, helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "length"])
        )
        used.append(helper.make_node("Identity", ["input_ids"], ["words"]))
    results = [helper.make_tensor_value_info(name, kind, shapes[name]) for name in outputs]
    if text:
        results.append(helper.make_tensor_value_info("words", TensorProto.INT64, ["batch_size", "length"]))
    graph = helper.make_graph(
        [*nodes, *used],
        "transformer",
        inputs,
        results,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path
