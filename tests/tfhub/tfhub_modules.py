"""Tiny reusable SavedModels, written with TensorFlow alone, so that any hub library can be tried on them.

`module(folder, name)` writes one at its first use and gives its path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

KERNEL = [[1.0, 2.0, -1.0], [0.5, -1.0, 3.0]]
WORDS = ["leaf", "root", "bark"]
WIDTH = 3


class FeatureVector(tf.Module):
    """x (N, 2) float32 → (N, 3): a product, a batch norm of momentum 0.5, and in training a dropout of one half."""

    def __init__(self, dropout: float = 0.5) -> None:
        self.kernel = tf.Variable(KERNEL, name="dense/kernel")
        self.gamma = tf.Variable(tf.ones(WIDTH), name="bn/gamma")
        self.beta = tf.Variable(tf.zeros(WIDTH), name="bn/beta")
        self.mean = tf.Variable(tf.zeros(WIDTH), trainable=False, name="bn/mean")
        self.var = tf.Variable(tf.ones(WIDTH), trainable=False, name="bn/variance")
        self.dropout = dropout

    def features(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        y = x @ self.kernel
        if training:
            mean, var = tf.nn.moments(y, [0])
            self.mean.assign(0.5 * self.mean + 0.5 * mean)
            self.var.assign(0.5 * self.var + 0.5 * var)
        else:
            mean, var = self.mean.value(), self.var.value()
        y = tf.nn.batch_normalization(y, mean, var, self.beta, self.gamma, 1e-3)
        return tf.nn.dropout(y, self.dropout) if training and self.dropout else y


def reusable(inner: tf.Module, call: Any, trainable: Sequence[Any], other: Sequence[Any]) -> Any:
    """An object with the attributes that the interface asks for."""
    outer = tf.train.Checkpoint()
    outer.inner = inner
    outer.__call__ = call
    outer.trainable_variables = list(trainable)
    outer.variables = [*other, *trainable]  # mixed up: the order must not matter
    return outer


def traced(function: Callable[..., Any], spec: Any, choices: Sequence[dict[str, Any]] = ({},)) -> Any:
    function = tf.function(function)
    for choice in choices:
        function.get_concrete_function(spec, **choice)
    return function


PAIR = tf.TensorSpec([None, 2], tf.float32, name="x")


def signature(function: Callable[..., Any]) -> Any:
    return tf.function(function, input_signature=[PAIR])


MODES = ({"training": True}, {"training": False})


def feature_vector(path: Path, dropout: float = 0.5, loss: bool = False, serving: bool = False) -> None:
    inner = FeatureVector(dropout)

    def call(x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return inner.features(x, training)

    outer = reusable(
        inner, traced(call, PAIR, MODES), [inner.kernel, inner.gamma, inner.beta], [inner.mean, inner.var]
    )
    if loss:
        kernel = tf.function(lambda: tf.reduce_sum(inner.kernel**2), input_signature=[])
        gamma = tf.function(lambda: 0.5 * tf.reduce_sum(inner.gamma), input_signature=[])
        outer.regularization_losses = [kernel, gamma]
    signatures = {}
    if serving:
        serve = signature(lambda x: {"features": inner.features(x), "twice": 2 * inner.features(x)})
        signatures = {"serving_default": serve, "other": signature(lambda x: {"negative": -x})}
    tf.saved_model.save(outer, str(path), signatures=signatures)


def crowded(path: Path) -> None:
    """x → x·gain, where the one gain, 2, has two losses: its square and its triple."""
    inner = tf.Module()
    inner.gain = tf.Variable(2.0, name="gain")
    outer = reusable(inner, traced(lambda x: x * inner.gain, PAIR), [inner.gain], [])
    square = tf.function(lambda: inner.gain**2, input_signature=[])
    outer.regularization_losses = [square, tf.function(lambda: 3 * inner.gain, input_signature=[])]
    tf.saved_model.save(outer, str(path))


def loss_not_callable(path: Path) -> None:
    outer = reusable(tf.Module(), traced(lambda x: x, PAIR), [], [])
    outer.regularization_losses = [tf.Variable(1.0)]
    tf.saved_model.save(outer, str(path))


def arguments(path: Path) -> None:
    """x (N, 2) → x·scale + shift, for scale 1 or 3 and shift 0 or 10."""
    choices = [{"scale": scale, "shift": shift} for scale in (1.0, 3.0) for shift in (0.0, 10.0)]
    outer = tf.train.Checkpoint()
    outer.__call__ = traced(lambda x, scale=1.0, shift=0.0: x * scale + shift, PAIR, choices)
    tf.saved_model.save(outer, str(path))


def dict_in_dict_out(path: Path) -> None:
    """{a, b}: (N, 2) each → {sum: (N, 2), first: (N, 1)}."""
    outer = tf.train.Checkpoint()
    call = traced(lambda xs: {"sum": xs["a"] + xs["b"], "first": xs["a"][:, :1]}, {"a": PAIR, "b": PAIR})
    outer.__call__ = call
    specs = [tf.TensorSpec([None, 2], tf.float32, name=name) for name in ("a", "b")]
    pair = tf.function(lambda a, b: {"difference": a - b, "sum": a + b}, input_signature=specs)
    tf.saved_model.save(outer, str(path), signatures={"pair": pair})


def list_in_list_out(path: Path) -> None:
    """[a, b]: (N, 2) each → [a + b: (N, 2), the first column of a: (N, 1)]."""
    outer = tf.train.Checkpoint()
    outer.__call__ = traced(lambda xs: [xs[0] + xs[1], xs[0][:, :1]], [PAIR, PAIR])
    tf.saved_model.save(outer, str(path))


def strings(path: Path) -> None:
    """A word (N,) → (N, 2), by a vocabulary file and a trainable table: leaf → 0, 1; root → 10, 11; bark → 20, 21."""
    file = path.parent / "vocabulary.txt"
    file.write_text("\n".join(WORDS), encoding="utf-8")
    inner = tf.Module()
    inner.asset = tf.saved_model.Asset(str(file))
    whole, line = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    rows = tf.lookup.TextFileInitializer(inner.asset, tf.string, whole, tf.int64, line)
    inner.table = tf.lookup.StaticHashTable(rows, default_value=-1)
    inner.vectors = tf.Variable([[0.0, 1.0], [10.0, 11.0], [20.0, 21.0], [-1.0, -1.0]], name="vectors")

    def call(words: tf.Tensor) -> tf.Tensor:
        found = inner.table.lookup(words)
        return tf.gather(inner.vectors, tf.where(found < 0, tf.constant(3, tf.int64), found))

    outer = reusable(inner, traced(call, tf.TensorSpec([None], tf.string)), [inner.vectors], [])
    tf.saved_model.save(outer, str(path))
    file.unlink()  # the module's own copy must do


def signature_only(path: Path) -> None:
    outer = tf.train.Checkpoint()
    serve = signature(lambda x: {"sum": tf.reduce_sum(x, 1), "double": 2 * x})
    # A tensor named `training`, which no layer may fill in.
    takes = tf.function(
        lambda x, training: {"chosen": tf.where(training, x, -x)},
        input_signature=[PAIR, tf.TensorSpec([], tf.bool, name="training")],
    )
    tf.saved_model.save(outer, str(path), signatures={"serving_default": serve, "takes_training": takes})


def legacy(path: Path) -> None:
    """TF1's format: a graph without tags, the signature `default`, and tfhub_module.pb."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        kernel = v1.get_variable("kernel", initializer=KERNEL, use_resource=True)
        y = x @ kernel
        session.run(v1.global_variables_initializer())
        outputs = {"default": y, "twice": 2 * y}
        describe = v1.saved_model.utils.build_tensor_info
        signature = v1.saved_model.signature_def_utils.build_signature_def(
            {"x": describe(x)}, {name: describe(tensor) for name, tensor in outputs.items()}
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [], signature_def_map={"default": signature})
        builder.save()
    (path / "tfhub_module.pb").write_bytes(b"\x08\x03")


def mixed_dtypes(path: Path) -> None:
    """{ids: (N,) int32, weights: (N, 2) float16} → (N, 2) float16: a row of a table, times the weights."""
    inner = tf.Module()
    inner.table = tf.Variable(tf.constant([[1.0, 2.0], [3.0, 4.0]], tf.float16), name="table")
    spec = {"ids": tf.TensorSpec([None], tf.int32), "weights": tf.TensorSpec([None, 2], tf.float16)}
    call = traced(lambda xs: tf.gather(inner.table, xs["ids"]) * xs["weights"], spec)
    tf.saved_model.save(reusable(inner, call, [inner.table], []), str(path))


def unknown_shape(path: Path) -> None:
    """x (N, 2) → x, of which the graph doesn't know even the number of dimensions."""
    outer = tf.train.Checkpoint()
    outer.__call__ = traced(lambda x: tf.reshape(x, _hidden(tf.shape(x))), PAIR)
    tf.saved_model.save(outer, str(path))


def unknown_shapes(path: Path) -> None:
    """x (N, 2) → {same: x, deep: [x, (N, 1, 2)]}, of unknown numbers of dimensions."""

    def call(x: tf.Tensor) -> dict[str, Any]:
        same = tf.reshape(x, _hidden(tf.shape(x)))
        return {"same": same, "deep": [same, tf.reshape(x, _hidden(tf.stack([tf.shape(x)[0], 1, 2])))]}

    outer = tf.train.Checkpoint()
    outer.__call__ = traced(call, PAIR)
    tf.saved_model.save(outer, str(path))


def _hidden(sizes: tf.Tensor) -> tf.Tensor:
    """The same sizes, but how many there are is known only when it runs."""
    zero = tf.random.uniform([], maxval=1, dtype=tf.int32)  # which no shape inference works out
    return tf.boolean_mask(sizes, sizes > zero)


def images(path: Path) -> None:
    """RGB (N, 8, 8, 3) float32 → (N, 3): each picture's mean colour, times a trainable gain."""
    inner = tf.Module()
    inner.gain = tf.Variable(1.0, name="gain")
    spec = tf.TensorSpec([None, 8, 8, 3], tf.float32)
    call = traced(lambda x, training=False: tf.reduce_mean(x, [1, 2]) * inner.gain, spec, MODES)
    tf.saved_model.save(reusable(inner, call, [inner.gain], []), str(path))


def optimizer_slots(path: Path) -> None:
    """A module that says, as Keras 2 optimizers do, that one variable is a slot of another."""
    feature_vector(path)
    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    nodes = model.meta_graphs[0].object_graph_def.nodes
    first, second = [i for i, node in enumerate(nodes) if node.WhichOneof("kind") == "variable"][:2]
    nodes[0].slot_variables.add(original_variable_node_id=first, slot_name="m", slot_variable_node_id=second)
    file.write_bytes(model.SerializeToString())


MAKERS: dict[str, Callable[[Path], None]] = {
    "feature_vector": feature_vector,
    "steady": lambda path: feature_vector(path, dropout=0.0),
    "regularized": lambda path: feature_vector(path, dropout=0.0, loss=True),
    "serving": lambda path: feature_vector(path, serving=True),
    "crowded": crowded,
    "loss_not_callable": loss_not_callable,
    "arguments": arguments,
    "dict": dict_in_dict_out,
    "list": list_in_list_out,
    "strings": strings,
    "signature_only": signature_only,
    "legacy": legacy,
    "mixed_dtypes": mixed_dtypes,
    "unknown_shape": unknown_shape,
    "unknown_shapes": unknown_shapes,
    "images": images,
    "optimizer_slots": optimizer_slots,
}


def module(folder: Path, name: str) -> str:
    """The path of a module in the folder; written there if it isn't yet."""
    path = folder / "modules" / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        MAKERS[name](path)
    return str(path)
