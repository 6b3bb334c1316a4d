"""Keras 3: a `.keras` file made of Keras' own layers and operations, which loads in safe mode and without Topwork."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.conversion.tracing import keras_plainly
from topwork.errors import TopworkError
from topwork.exports.contents import KEY, Contents
from topwork.exports.tensorflow_graph import joined

if TYPE_CHECKING:
    import openvino as ov

    from topwork.graphs.trainable.plan import Place, Plan, Step
    from topwork.graphs.trainable.values import Value

LABELS = "labels.txt"

Array = np.ndarray[Any, np.dtype[Any]]


def write(graph: ov.Model, contents: Contents, path: Path, *, precision: str, pictures: Array) -> None:
    """Write the new file `path`. Input: `image` uint8 (N, S, S, 3). Outputs: those of the graph, by name.

    Convolutions and products with a weight matrix become layers with trainable weights, everything else operations
    of `keras.ops`. The file is a zip, and also contains `labels.txt` and `topwork.json`.

    Raises:
        TopworkError: the network has an operator that needs custom code in Keras; the message names it.
    """
    with keras_plainly("writing a Keras file"):
        model = build(graph, contents)
        model.save(str(path))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(LABELS, "\n".join(contents.classes))
        file.writestr(f"{KEY}.json", contents.to_json())


def load(path: Path) -> Callable[[Array], dict[str, Array]]:
    """Load the file in Keras, without Topwork's code: uint8 (N, S, S, 3) → outputs by name."""
    import keras

    model = keras.saving.load_model(str(path), compile=False, safe_mode=True)

    def run(image: Array) -> dict[str, Array]:
        return {name: np.asarray(value) for name, value in model.predict_on_batch(image).items()}

    return run


def build(graph: ov.Model, contents: Contents) -> Any:
    """The graph as a functional `keras.Model`."""
    import keras

    from topwork.graphs.trainable.plan import read
    from topwork.graphs.trainable.values import Value, constant, plain, tensor

    whole, names, widths = joined(graph)
    plan = read(whole, output="answers")
    biases, kept = _biases(plan)
    image = keras.Input((*contents.size_px, 3), dtype="uint8", name="image")
    known: dict[Place, Value] = {place: constant(found.value) for place, found in plan.constants.items()}
    known[plan.image] = Value(keras.ops.cast(image, "float32"), plan.image_shape, of_images=True)
    for step in plan.steps:
        if step.place in kept:
            known[step.place] = known[kept[step.place]]
            continue
        values = [known[place] for place in step.inputs]
        try:
            known[step.place] = _made(step, values, biases.get(step.place))
        except TopworkError:
            raise
        except Exception as error:
            raise TopworkError(
                f"the operator {step.kind} ({step.name!r}) can't be written as a Keras file "
                f"({str(error).splitlines()[0][:120]}); use --format savedmodel or onnx"
            ) from error
    parts = (
        keras.ops.split(tensor(plain(known[plan.result])), np.cumsum(widths[:-1]).tolist(), axis=1)
        if len(widths) > 1
        else [tensor(plain(known[plan.result]))]
    )
    return keras.Model(image, dict(zip(names, parts, strict=True)), name="topwork")


def _biases(plan: Plan) -> tuple[dict[Place, Array], dict[Place, Place]]:
    """The bias of each convolution or product, from an addition per channel; and the additions that this replaces."""
    used = Counter(place for step in plan.steps for place in step.inputs)
    made = {step.place: step for step in plan.steps}
    biases: dict[Place, Array] = {}
    kept: dict[Place, Place] = {}
    for step in plan.steps:
        if step.kind != "Add":
            continue
        for one, two in (step.inputs, step.inputs[::-1]):
            before, added = made.get(one), plan.constants.get(two)
            if before is None or added is None or used[one] != 1 or one == plan.result:
                continue
            width = _width(before, plan)
            axis = 1 if before.kind in ("Convolution", "GroupConvolution") else len(before.shapes[0]) - 1
            wanted = [1] * len(before.shapes[0])
            wanted[axis] = width or 0
            shape = [1] * (len(wanted) - added.value.ndim) + list(added.value.shape)
            if width is not None and shape == wanted and step.shapes == before.shapes:
                biases[one], kept[step.place] = added.value.reshape(-1), one
                break
    return biases, kept


def _width(step: Step, plan: Plan) -> int | None:
    """The number of output channels if the step becomes a layer, else None."""
    if len(step.inputs) < 2 or step.inputs[1] not in plan.constants:
        return None
    kernel = plan.constants[step.inputs[1]].value
    if step.kind in ("Convolution", "GroupConvolution"):
        return step.shapes[0][1] if len(step.shapes[0]) == 4 else None
    if step.kind == "MatMul" and kernel.ndim == 2 and not step.attributes["transpose_a"]:
        return step.shapes[0][-1]
    return None


def _made(step: Step, values: list[Value], bias: Array | None) -> Value:
    from topwork.graphs.trainable.operators import apply

    held = len(values) > 1 and isinstance(values[1].tensor, np.ndarray) and values[0].of_images
    if held and step.kind in ("Convolution", "GroupConvolution") and len(step.shapes[0]) == 4:
        return _convolution(step, values[0], values[1].tensor, bias)
    if held and step.kind == "MatMul" and values[1].tensor.ndim == 2 and not step.attributes["transpose_a"]:
        return _dense(step, values[0], values[1].tensor, bias)
    assert bias is None, step
    if step.kind == "Concat" and (first := next((v for v in values if v.of_images), None)) is not None:
        values = [value if value.of_images else _for_each_image(value, first) for value in values]
    return apply(step, values)


def _for_each_image(value: Value, like: Value) -> Value:
    """Repeat a constant (a class token) for each image; their number is only known at run time."""
    import keras

    from topwork.graphs.trainable.values import Value, apart, reshaped, tensor

    x = apart(like)
    zero = keras.ops.zeros_like(keras.ops.mean(x, axis=tuple(range(1, len(x.shape))), keepdims=True))
    x = keras.ops.add(zero, keras.ops.expand_dims(tensor(value, x), 0))  # (N, a, …)
    return Value(reshaped(x, value.held, of_images=True), value.shape, of_images=True, last=value.last)


def _convolution(step: Step, image: Value, kernel: Array, bias: Array | None) -> Value:
    import keras

    from topwork.graphs.trainable.spatial import bordered, window_of
    from topwork.graphs.trainable.values import Value, channels_last, tensor

    image = channels_last(image)
    grouped = step.kind == "GroupConvolution"
    groups = len(kernel) if grouped else 1
    window = window_of(step, image, kernel.shape[3 if grouped else 2 :])
    # TensorFlow has no dilated convolution with strides, so compute all positions and drop some afterwards.
    skipped = max(window.strides) > 1 and max(window.dilations) > 1
    even = len(set(window.strides)) == 1
    own = window.same and not skipped
    x = tensor(image) if own else bordered(tensor(image), window, 0.0)
    options = {
        "kernel_size": window.kernel,
        "strides": 1 if skipped else window.strides,
        "padding": "same" if own else "valid",
        "dilation_rate": window.dilations,
        "use_bias": bias is not None,
        "name": f"node{step.place.node}_{step.kind.lower()}",
    }
    if grouped and kernel.shape[2] == 1 and even:
        layer = keras.layers.DepthwiseConv2D(depth_multiplier=kernel.shape[1], **options)
        weight = kernel[:, :, 0].transpose(2, 3, 0, 1)  # (groups, O, H, W) → (H, W, groups, O)
    else:
        flat = kernel.reshape(-1, *kernel.shape[2:]) if grouped else kernel
        layer = keras.layers.Conv2D(filters=len(flat), groups=groups, **options)
        weight = flat.transpose(2, 3, 1, 0)
    x = layer(x)
    layer.set_weights([weight, *([] if bias is None else [bias])])
    if skipped:
        for axis, stride in enumerate(window.strides, start=1):
            x = keras.ops.take(x, np.arange(0, x.shape[axis], stride), axis=axis)
    return Value(x, step.shapes[0], of_images=True, last=True)


def _dense(step: Step, value: Value, weight: Array, bias: Array | None) -> Value:
    import keras

    from topwork.graphs.trainable.values import Value, plain, reshaped, tensor

    weight = weight.T if step.attributes["transpose_b"] else weight
    layer = keras.layers.Dense(
        weight.shape[1], use_bias=bias is not None, name=f"node{step.place.node}_matmul"
    )
    x = layer(tensor(plain(value)))
    layer.set_weights([weight, *([] if bias is None else [bias])])
    return Value(reshaped(x, step.shapes[0], of_images=True), step.shapes[0], of_images=True)
