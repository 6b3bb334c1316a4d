"""`KerasLayer`: a published module, or any callable that follows its conventions, as a Keras 3 layer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from topwork.errors import InputError
from topwork.tfhub.choosing import check_outputs, get_function, get_module, take_output
from topwork.tfhub.frameworks import keras, tf
from topwork.tfhub.shapes import batched, from_shapes, set_shapes, to_shapes
from topwork.tfhub.traces import common_dtype, conform, input_specs, signature_specs, symbolic, takes_training
from topwork.tfhub.variables import attach_losses, keras_variables

_log = logging.getLogger("topwork.tfhub")


@dataclass(frozen=True, slots=True)
class _Choices:
    """The constructor's arguments, in a record that neither Keras nor TensorFlow tracks."""

    handle: Any  # a string or a callable
    arguments: dict[str, Any]
    tags: tuple[str, ...] | None
    signature: str | None
    outputs_as_dict: bool
    output_key: str | None
    output_shape: Any  # a nest of tf.TensorShape; None: the module's shapes
    input_shape: tuple[int | None, ...] | None  # with the batch dimension


@keras.saving.register_keras_serializable(package="topwork")
class KerasLayer(keras.layers.Layer):  # type: ignore[misc]
    """A module as a layer: `KerasLayer("https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5")`.

    The module is called with one positional argument: a tensor or a nest of tensors. Image modules take float32
    (N, H, W, 3), RGB in [0, 1]. The layer uses these attributes of the module, all optional: `variables`;
    `trainable_variables`, which are trained if the layer is trainable; `regularization_losses`, callables without
    arguments, which are added to the loss if the layer is trainable. If the module takes a `training` argument, it
    gets a Python bool, which is true only if the layer is trainable and called in training mode. The module keeps
    the dtypes that it was saved with.

    Args:
        handle: a path, URL or other handle accepted by `load`, or a callable.
        trainable: whether to train the module's weights. Not supported with a signature.
        arguments: additional keyword arguments for each call.
        tags: which graph to load. Not supported with a callable.
        signature: call this signature instead of the object itself; a dict of inputs is then passed as keyword
            arguments.
        signature_outputs_as_dict: return all outputs of the signature.
        output_key: the output to return from a dict of outputs.
        output_shape: the shapes of the outputs without the batch dimension, if the module doesn't specify them.
        load_options: a `tf.saved_model.LoadOptions`. Not supported with a callable.
        kwargs: arguments of `keras.layers.Layer`, and `input_shape`, without the batch dimension, for the first
            layer of a `keras.Sequential`.

    Raises:
        InputError: the arguments are inconsistent, or the module has no such signature or output.
        TopworkError: the module can't be loaded.
    """

    def __init__(
        self,
        handle: str | os.PathLike[str] | Callable[..., Any],
        trainable: bool = False,
        arguments: Mapping[str, Any] | None = None,
        _sentinel: None = None,  # in tensorflow_hub's signature too; not used
        tags: Collection[str] | None = None,
        signature: str | None = None,
        signature_outputs_as_dict: bool | None = None,
        output_key: str | None = None,
        output_shape: Any = None,
        load_options: Any = None,
        **kwargs: Any,
    ) -> None:
        module = get_module(handle, tags, load_options)
        legacy = getattr(module, "_is_hub_module_v1", False)
        if legacy:
            signature = signature or "default"
            output_key = output_key or (None if signature_outputs_as_dict else "default")
        check_outputs(signature, output_key, signature_outputs_as_dict)
        function = get_function(module, signature, handle)
        specs = list(signature_specs(function).values()) if signature else input_specs(function)
        batch_input_shape = kwargs.pop("batch_input_shape", None)
        if (shape := kwargs.pop("input_shape", None)) is not None:
            batch_input_shape = (None, *shape)
        own_dtype = _policy(common_dtype(specs))
        if own_dtype is not None:
            kwargs["dtype"] = own_dtype
        super().__init__(trainable=bool(trainable), autocast=False, **kwargs)
        self.supports_jit = False  # a SavedModel may have operations that XLA can't compile
        self._convert_input_args = False  # `call` converts them, to the dtypes of the traces
        self._allow_non_tensor_positional_args = True  # Python numbers, strings and lists, as in Keras 2
        self._choices = _Choices(
            handle=handle if callable(handle) else os.fspath(handle),
            arguments=dict(arguments or {}),
            tags=None if tags is None else tuple(tags),
            signature=signature,
            outputs_as_dict=bool(signature_outputs_as_dict),
            output_key=output_key,
            output_shape=None if output_shape is None else to_shapes(output_shape),
            input_shape=None if batch_input_shape is None else tuple(batch_input_shape),
        )
        self._module = module  # tracked, so a SavedModel of the whole model has its tables and assets
        self._legacy = legacy
        self._function = function
        self._takes_training = not signature and takes_training(function)
        self._warned = False
        if not isinstance(module, keras.layers.Layer):  # Keras tracks a layer's weights itself
            variables = keras_variables(module, self.name)
            attach_losses(module, [variable for variable in variables if variable.trainable])
            for variable in variables:
                self._track_variable(variable)
        self.built = True

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Call the module on a tensor or a nest of tensors; returns a tensor or a nest of tensors.

        Raises:
            InputError: the layer is trainable but has a signature, or `output_key` or `output_shape` doesn't match.
        """
        self._check_trainable()
        choices = self._choices
        inputs = self._conform(inputs)
        if choices.signature and isinstance(inputs, dict):
            result = self._run(training, (), {**choices.arguments, **inputs})
        else:
            result = self._run(training, (inputs,), choices.arguments)
        if choices.output_key:
            result = take_output(result, choices.output_key)
        if choices.output_shape is not None:
            set_shapes(result, choices.output_shape, inputs)
        return result

    def compute_output_spec(self, inputs: Any, training: Any = None) -> Any:
        """Shapes and dtypes of the module's outputs, regardless of the layer's dtype.

        Raises:
            InputError: the rank of an output is unknown, and `output_shape` is not given.
        """
        try:
            return keras.Operation.compute_output_spec(self, inputs, training=training)
        except ValueError as error:
            if "unknown TensorShape" not in str(error):
                raise
            raise InputError(
                f"{self.name}: the module doesn't specify the shape of its output. Pass `output_shape`, without the "
                "batch dimension, such as output_shape=(1280,)"
            ) from error

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape, or nest of shapes, of the outputs for an input shape, or nest of input shapes."""
        if isinstance(input_shape, tf.TensorShape):
            input_shape = input_shape.as_list()
        if self._choices.output_shape is not None:
            sizes: list[int | None] = []
            keras.tree.map_shape_structure(
                lambda shape: sizes.append(shape[0] if shape else None), input_shape
            )
            return batched(self._choices.output_shape, sizes[0])
        inputs = symbolic(input_shape, self._specs(), self.compute_dtype)
        return keras.tree.map_structure(lambda output: output.shape, self.compute_output_spec(inputs))

    @property
    def resolved_object(self) -> Any:
        """The loaded TensorFlow object, or the callable passed as `handle`."""
        return self._module

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The constructor's `input_shape`, with the batch dimension; used by `keras.Sequential`."""
        if self._choices.input_shape is None:
            raise AttributeError(f"{self.name} was made without `input_shape`")
        return self._choices.input_shape

    def get_config(self) -> dict[str, Any]:
        """The config for `from_config`.

        Raises:
            NotImplementedError: the handle is a callable.
            InputError: an argument can't be represented in JSON.
        """
        choices = self._choices
        if not isinstance(choices.handle, str):
            raise NotImplementedError(
                "only a KerasLayer with a string handle has a config; this one's handle is a "
                f"{type(choices.handle).__name__}. Save the module as a SavedModel and pass its path"
            )
        for name, value in choices.arguments.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"`arguments` must be representable in JSON to be saved; {name!r} is {value!r} of type "
                    f"{type(value).__name__}"
                ) from error
        ours = {
            "arguments": choices.arguments,
            "tags": list(choices.tags or ()),
            "signature": choices.signature,
            "signature_outputs_as_dict": choices.outputs_as_dict,
            "output_key": choices.output_key,
            "batch_input_shape": choices.input_shape,
        }
        config = {**super().get_config(), "handle": choices.handle, **{k: v for k, v in ours.items() if v}}
        if choices.output_shape is not None:
            config["output_shape"] = from_shapes(choices.output_shape)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasLayer:
        """Create the layer from its config. Not allowed while Keras loads a file in safe mode.

        Raises:
            InputError: Keras is loading in safe mode.
        """
        if _in_safe_mode():
            raise InputError(
                f"this file contains a KerasLayer, with the graph of {config.get('handle')!r}; Keras' safe mode "
                "doesn't allow that. If you trust both, load with `safe_mode=False`, or call "
                "keras.config.enable_unsafe_deserialization() first"
            )
        return super().from_config(config)  # type: ignore[no-any-return]

    def _specs(self) -> list[Any]:
        if self._choices.signature:
            specs = signature_specs(self._function)
            return [specs, *specs.values()] if len(specs) == 1 else [specs]
        return input_specs(self._function)

    def _conform(self, inputs: Any) -> Any:
        if self._choices.signature and isinstance(inputs, dict):
            specs = signature_specs(self._function)
            return {
                name: conform(value, [specs[name]] if name in specs else [], None)
                for name, value in inputs.items()
            }
        if isinstance(self._module, keras.layers.Layer):
            return conform(inputs, [], None)
        floats = [v.dtype for v in self.weights if keras.backend.is_float_dtype(v.dtype)]
        default = self.variable_dtype if keras.backend.is_float_dtype(self.variable_dtype) else None
        return conform(inputs, self._specs(), floats[0] if floats else default)

    def _run(self, training: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._takes_training:
            return self._function(*args, **kwargs)
        if not self.trainable or training is None:
            training = False
        if tf.is_tensor(training):
            known = tf.get_static_value(training)
            if known is None:
                return tf.cond(
                    training,
                    lambda: self._function(*args, **{**kwargs, "training": True}),
                    lambda: self._function(*args, **{**kwargs, "training": False}),
                )
            training = known
        return self._function(*args, **{**kwargs, "training": bool(training)})

    def _check_trainable(self) -> None:
        """Check `trainable` in `call`, not in the constructor, because it can be set at any time."""
        if not self.trainable:
            return
        if self._choices.signature:
            kind = "a module in TF1 format" if self._legacy else f"the signature {self._choices.signature!r}"
            raise InputError(
                f"{self.name}: trainable=True needs a module that is called directly; {kind} can't be trained. "
                "Set trainable=False, or use the TF2 version of the module"
            )
        if not self._warned and not self.trainable_weights:
            self._warned = True
            _log.error("%s is trainable but has zero trainable weights", self.name)


def _policy(dtype: str | None) -> str | None:
    """The dtype if Keras accepts it as a policy, else None."""
    try:
        return dtype and keras.DTypePolicy(dtype).name
    except ValueError:
        return None


def _in_safe_mode() -> bool:
    """Whether Keras is loading a file in safe mode. There is no public function for this."""
    from keras.src.saving import serialization_lib

    return serialization_lib.in_safe_mode() is True
