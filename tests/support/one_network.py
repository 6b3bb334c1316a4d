"""One small network in three formats: run as a program with a folder, it writes `savedmodel/`, `net.tflite`,
`net.onnx`, four pictures and what TensorFlow makes of them. Needs TensorFlow, which the reading of them does not.

Five convolutions, two of them depthwise, each with a batch norm whose statistics are not the defaults, and ReLU6;
then the average over the picture. It takes pixels in [0, 1] and scales them to [-1, 1] itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SIDE_PX, WIDTH = 64, 64
EPSILON = 1e-3
# (kernel's shape height, width, in, out or multiplier; stride; depthwise)
LAYERS = (
    ((3, 3, 3, 16), 2, False),
    ((3, 3, 16, 1), 2, True),
    ((1, 1, 16, 32), 1, False),
    ((3, 3, 32, 1), 2, True),
    ((1, 1, 32, WIDTH), 1, False),
)


def make_network(folder: Path) -> Path:
    """The three files and `pictures.npy` uint8 (4, S, S, 3), `features.npy` float32 (4, 64), in `folder`."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def _weights() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    layers = []
    for shape, stride, depthwise in LAYERS:
        channels = shape[2] if depthwise else shape[3]
        fan_in = shape[0] * shape[1] * (1 if depthwise else shape[2])
        layers.append(
            {
                "kernel": (rng.normal(size=shape) * np.sqrt(2 / fan_in)).astype(np.float32),
                "gain": rng.uniform(0.5, 1.5, channels).astype(np.float32),
                "bias": (0.2 * rng.normal(size=channels)).astype(np.float32),
                "mean": (0.1 * rng.normal(size=channels)).astype(np.float32),
                "variance": rng.uniform(0.5, 1.5, channels).astype(np.float32),
                "stride": stride,
                "depthwise": depthwise,
            }
        )
    return layers


def _in_tensorflow(layers: list[dict[str, Any]]) -> Any:
    import tensorflow as tf

    class Network(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            names = ("kernel", "gain", "bias", "mean", "variance")
            self.held = [{name: tf.Variable(layer[name]) for name in names} for layer in layers]

        @tf.function(input_signature=[tf.TensorSpec([None, SIDE_PX, SIDE_PX, 3], name="image")])
        def __call__(self, image: Any) -> Any:
            x = image * 2 - 1
            for layer, held in zip(layers, self.held, strict=True):
                stride = layer["stride"]
                if layer["depthwise"]:
                    x = tf.nn.depthwise_conv2d(x, held["kernel"], [1, stride, stride, 1], "SAME")
                else:
                    x = tf.nn.conv2d(x, held["kernel"], stride, "SAME")
                x = tf.nn.batch_normalization(
                    x, held["mean"], held["variance"], held["bias"], held["gain"], EPSILON
                )
                x = tf.nn.relu6(x)
            return tf.reduce_mean(x, [1, 2])

    return Network()


def _write_onnx(layers: list[dict[str, Any]], path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    nodes.append(helper.make_node("Mul", ["image", constant("two", 2)], ["doubled"]))
    nodes.append(helper.make_node("Sub", ["doubled", constant("one", 1)], ["scaled"]))
    x = "scaled"
    for i, layer in enumerate(layers):
        order = (2, 3, 0, 1) if layer["depthwise"] else (3, 2, 0, 1)
        kernel = layer["kernel"].transpose(order)
        nodes.append(
            helper.make_node(
                "Conv",
                [x, constant(f"kernel{i}", kernel)],
                [f"filtered{i}"],
                auto_pad="SAME_UPPER",
                strides=[layer["stride"]] * 2,
                kernel_shape=list(kernel.shape[2:]),
                group=len(kernel) if layer["depthwise"] else 1,
            )
        )
        parts = [constant(f"{name}{i}", layer[name]) for name in ("gain", "bias", "mean", "variance")]
        nodes.append(
            helper.make_node("BatchNormalization", [f"filtered{i}", *parts], [f"norm{i}"], epsilon=EPSILON)
        )
        limits = [constant(f"least{i}", 0), constant(f"most{i}", 6)]
        x = f"active{i}"
        nodes.append(helper.make_node("Clip", [f"norm{i}", *limits], [x]))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    entry = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE_PX, SIDE_PX])
    end = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", WIDTH])
    graph = helper.make_graph(nodes, "one", [entry], [end], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def main(folder: Path) -> None:
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    layers = _weights()
    network = _in_tensorflow(layers)
    tf.saved_model.save(network, str(folder / "savedmodel"))
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "savedmodel"))
    (folder / "net.tflite").write_bytes(converter.convert())
    _write_onnx(layers, folder / "net.onnx")
    pictures = np.random.default_rng(1).integers(0, 256, (4, SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    np.save(folder / "pictures.npy", pictures)
    np.save(folder / "features.npy", network(pictures.astype(np.float32) / 255).numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
