"""Ways to break each promise: one change of the source's text for each check, under which that check must fail.

`mutant(name, folder)` gives a copy of `topwork.tfhub` with that change, as a package of its own.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import topwork.tfhub


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` stands in the file exactly once."""

    file: str
    old: str
    new: str


Mutation = tuple[Edit, ...]


def edit(file: str, old: str, new: str) -> Mutation:
    return (Edit(file, old, new),)


def layer(old: str, new: str) -> Mutation:
    return edit("layer.py", old, new)


def traces(old: str, new: str) -> Mutation:
    return edit("traces.py", old, new)


TEXT_OR_PATH = "if not isinstance(handle, str | os.PathLike):"
NEVER_FROZEN = layer("if not self.trainable or training is None:", "if training is None:")
EVERY_DICT_IS_KEYWORDS = layer(
    "if choices.signature and isinstance(inputs, dict):\n            result",
    "if isinstance(inputs, dict):\n            result",
)
NO_WEIGHTS = layer("            for variable in variables:\n", "            for variable in []:\n")
UNTRACKED = layer("self._module = module", 'self.__dict__["_module"] = module') + layer(
    "self._function = function", 'self.__dict__["_function"] = function'
)
COPIED_WEIGHTS = edit(
    "variables.py", "            variable, dtype=", "            variable.numpy(), dtype="
) + edit("variables.py", "if ours.value is not variable:", "if False:")

# The name of the check → what breaks it.
MUTATIONS: dict[str, Mutation] = {
    "a_handle_is_a_text": edit("loading.py", TEXT_OR_PATH, "if isinstance(handle, str):"),
    "a_handle_is_a_path": edit("loading.py", TEXT_OR_PATH, "if not isinstance(handle, str):"),
    "a_handle_is_a_callable": edit("choosing.py", "    if not callable(handle):\n", "    if True:\n"),
    "a_callable_excludes_tags": edit("choosing.py", '("tags", tags)', '("tags", None)'),
    "a_callable_excludes_load_options": edit(
        "choosing.py", '("load_options", load_options)', '("load_options", None)'
    ),
    "other_handles_are_refused": edit("loading.py", TEXT_OR_PATH, "if False:"),
    "a_signature_is_called": edit(
        "choosing.py", "return signatures[signature]", "return signatures[max(signatures)]"
    ),
    "a_signature_needs_a_choice_of_outputs": edit(
        "choosing.py", "(output_key is not None) == bool(as_dict)", "output_key is not None and as_dict"
    ),
    "a_signature_refuses_two_choices_of_outputs": edit(
        "choosing.py", "(output_key is not None) == bool(as_dict)", "output_key is None and not as_dict"
    ),
    "signature_outputs_as_dict_gives_all": layer(
        "result = self._run(training, (inputs,), choices.arguments)\n",
        "result = self._run(training, (inputs,), choices.arguments)\n"
        "            result = next(iter(result.values())) if isinstance(result, dict) else result\n",
    ),
    "outputs_as_dict_needs_a_signature": edit("choosing.py", "if as_dict and not signature:", "if False:"),
    "a_legacy_module_has_defaults": layer('signature or "default"', "signature"),
    "a_legacy_module_gives_all_outputs": layer(
        '(None if signature_outputs_as_dict else "default")', '"default"'
    ),
    "a_dict_becomes_keyword_arguments_with_a_signature": layer(
        "if choices.signature and isinstance(inputs, dict):\n            result",
        "if False:\n            result",
    ),
    "otherwise_a_dict_is_one_argument": EVERY_DICT_IS_KEYWORDS,
    "a_list_is_one_argument": layer("(training, (inputs,), c", "(training, tuple(inputs), c"),
    "unknown_signatures_are_refused": edit("choosing.py", "if signature not in signatures:", "if False:"),
    "a_trainable_signature_fails_at_the_call": layer(
        "        check_outputs(",
        "        if trainable and signature:\n"
        "            raise ValueError('trainable')\n        check_outputs(",
    ),
    "a_trainable_legacy_module_fails_at_the_call": layer(
        "        if self._choices.signature:\n            kind",
        "        if self._choices.signature and not self._legacy:\n            kind",
    ),
    "no_trainable_weight_is_logged_once": layer("            self._warned = True\n", ""),
    "training_is_passed_only_where_it_is_taken": layer(
        "self._takes_training = not signature and takes_training(function)", "self._takes_training = True"
    ),
    "training_is_a_python_bool": layer("bool(training)})", "training})"),
    "a_frozen_layer_never_trains": NEVER_FROZEN,
    "a_signature_never_receives_training": layer(
        "not signature and takes_training(", "signature or takes_training("
    ),
    "an_unknown_training_is_decided_in_the_graph": layer(
        "            if known is None:\n", "            if False:\n"
    ),
    "a_frozen_batch_norm_never_moves": NEVER_FROZEN,
    "a_trainable_batch_norm_learns_its_statistics": layer("bool(training)})", "False})"),
    "dropout_drops_only_in_training": layer("bool(training)})", "self.trainable})"),
    "trainable_variables_are_trained": edit("variables.py", "trainable=key in trained", "trainable=True"),
    "the_rest_of_variables_is_not": edit("variables.py", "{**trained, **every}.items()", "trained.items()"),
    "a_frozen_layer_has_no_trainable_weights": layer("trainable: bool = False", "trainable: bool = True"),
    "weights_are_the_modules_own": COPIED_WEIGHTS,
    "regularization_losses_count_while_trainable": edit(
        "variables.py", "    for place, variable in enumerate(variables):", "    for place, variable in ():"
    ),
    "regularization_losses_are_toggled_live": layer("if variable.trainable])", "if trainable])"),
    "fit_adds_the_regularization_losses": edit("variables.py", "losses[place : place + 1]", "[]"),
    "a_variable_carries_several_losses": edit(
        "variables.py", "losses[place:] if", "losses[place : place + 1] if"
    ),
    "a_regularization_loss_must_be_callable": edit("variables.py", "if not callable(loss):", "if False:"),
    "arguments_go_along": layer("(training, (inputs,), choices.arguments)", "(training, (inputs,), {})"),
    "arguments_go_along_with_a_signature": layer("{**choices.arguments, **inputs}", "{**inputs}"),
    "output_shape_settles_a_shape": layer(
        "        if choices.output_shape is not None:\n            set_",
        "        if False:\n            set_",
    ),
    "output_shape_may_be_a_list": edit(
        "shapes.py", "isinstance(size, int) for", "isinstance(given, tuple) for"
    ),
    "output_shape_may_be_a_nest": edit("shapes.py", "    if isinstance(given, dict):", "    if False:"),
    "a_wrong_output_shape_is_refused": edit(
        "shapes.py", "tensor.set_shape(batch_size.concatenate(shape))", "pass"
    ),
    "an_output_shape_of_another_structure_is_refused": edit(
        "shapes.py", "tf.nest.assert_same_structure(outputs, shapes, check_types=False)", "return"
    ),
    "output_shape_holds_for_any_batch_size": edit(
        "shapes.py", "tf.TensorShape([first[0] if first.rank else None])", "tf.TensorShape(first[0])"
    ),
    "an_unknown_shape_asks_for_output_shape": layer(
        'if "unknown TensorShape" not in str(error):', "if True:"
    ),
    "symbolic_shapes_come_from_the_module": layer(
        "return keras.Operation.compute_output_spec(self, inputs, training=training)",
        "return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)",
    ),
    "symbolic_dtypes_come_from_the_module": layer(
        "return keras.Operation.compute_output_spec(self, inputs, training=training)",
        "found = keras.Operation.compute_output_spec(self, inputs, training=training)\n"
        "            return keras.KerasTensor(found.shape, dtype=self.compute_dtype)",
    ),
    "compute_output_shape_works": layer("def compute_output_shape(", "def other_output_shape("),
    "compute_output_shape_works_for_words_and_nests": traces("dtype=next(dtypes))", "dtype='float32')"),
    "the_config_keeps_the_handle_and_trainable": layer(
        'config = {**super().get_config(), "handle"', 'config = {"handle"'
    ),
    "the_config_keeps_arguments": layer('            "arguments": choices.arguments,\n', ""),
    "the_config_keeps_the_signature_and_the_key": layer(
        '            "output_key": choices.output_key,\n', ""
    ),
    "the_config_keeps_outputs_as_dict": layer(
        '            "signature_outputs_as_dict": choices.outputs_as_dict,\n', ""
    ),
    "the_config_keeps_output_shape": layer(
        "        if choices.output_shape is not None:\n            config",
        "        if False:\n            config",
    ),
    "the_config_keeps_tags": layer('            "tags": list(choices.tags or ()),\n', ""),
    "a_callable_has_no_config": layer("if not isinstance(choices.handle, str):", "if False:"),
    "arguments_must_be_json": layer("                json.dumps(value)\n", "                pass\n"),
    "resolved_object_is_the_loaded_object": layer(
        "        return self._module\n", "        return self._function\n"
    ),
    "a_module_keeps_its_dtype_under_mixed_precision": layer(
        "        if own_dtype is not None:\n", "        if False:\n"
    ),
    "floats_are_cast_to_the_dtypes_of_the_trace": traces("    if cast is not None:\n", "    if False:\n"),
    "integers_are_not_taken_for_floats": traces('None if hasattr(value, "dtype") else hint', "hint"),
    "it_is_trained_under_mixed_precision": COPIED_WEIGHTS,
    "it_follows_layers_of_lower_precision": traces("    if cast is not None:\n", "    if False:\n"),
    "words_go_in": layer("inputs = self._conform(inputs)", "inputs = tf.cast(inputs, tf.float32)"),
    "words_need_no_dtype": layer(
        "self._allow_non_tensor_positional_args = True", "self._convert_input_args = True"
    ),
    "words_go_into_a_sequential": layer(
        '        if (shape := kwargs.pop("input_shape", None)) is not None:\n',
        '        if (shape := kwargs.pop("input_shape", None)) == 0:\n',
    ),
    "words_are_exported_with_their_assets": UNTRACKED,
    "tf_saved_model_save_takes_it": UNTRACKED,
    "a_trained_model_is_exported": COPIED_WEIGHTS,
    "output_key_narrows_a_plain_call": layer(
        "        if choices.output_key:\n", "        if choices.output_key and choices.signature:\n"
    ),
    "a_missing_key_fails_at_the_call": edit("choosing.py", "if key not in outputs:", "if False:"),
    "a_key_needs_a_dict": edit(
        "choosing.py", "    if not isinstance(outputs, Mapping):\n", "    if False:\n"
    ),
    "safe_mode_refuses_a_keras_file": layer("        if _in_safe_mode():\n", "        if False:\n"),
    "safe_mode_refuses_before_the_module_is_loaded": layer(
        "        if _in_safe_mode():\n",
        "        made = super().from_config(config)\n        if _in_safe_mode():\n",
    ),
    "a_keras_file_keeps_what_was_learned": NO_WEIGHTS,
    "a_keras_file_needs_no_custom_objects": layer(
        '@keras.saving.register_keras_serializable(package="topwork")\n', ""
    ),
    "a_keras_file_keeps_a_frozen_one_frozen": layer(
        "super().__init__(trainable=bool(trainable)", "super().__init__(trainable=True"
    ),
    "a_keras_file_keeps_words": NO_WEIGHTS,
    "a_model_can_be_cloned": layer(
        "serialization_lib.in_safe_mode() is True", "not serialization_lib.in_safe_mode() is False"
    ),
    "a_weights_file_goes_back_and_forth": NO_WEIGHTS,
    "a_checkpoint_goes_back_and_forth": UNTRACKED + NO_WEIGHTS,
    "frozen_in_fit_only_the_head_learns": NEVER_FROZEN,
    "trainable_in_fit_all_weights_learn": edit("variables.py", "trainable=key in trained", "trainable=False"),
    "it_works_in_the_functional_api": EVERY_DICT_IS_KEYWORDS,
    "training_reaches_it_in_the_functional_api": layer(
        "if not self.trainable or training is None:", "if True:"
    ),
    "a_loop_by_hand_trains_it": NO_WEIGHTS,
    "a_loop_by_hand_leaves_a_frozen_one": NEVER_FROZEN,
    "a_module_must_be_callable": edit("choosing.py", "        if callable(module):\n", "        if True:\n"),
    "the_other_attributes_are_optional": edit(
        "variables.py", 'getattr(module, "variables", ())', "module.variables"
    ),
    "another_keras_layer_may_be_the_callable": traces(
        "function.call if isinstance(function, keras.layers.Layer) else function", "function"
    ),
    "load_gives_the_object": edit("loading.py", "    return module\n", "    return module.signatures\n"),
    "load_refuses_what_is_no_saved_model": edit("loading.py", "    if not any(", "    if False and not any("),
    "load_options_and_tags_reach_tensorflow": edit("loading.py", ", options=options)", ")"),
    "optimizer_slots_say_the_mend": edit("loading.py", 'if "add_slot" not in str(error):', "if True:"),
}


def mutant(name: str, folder: Path) -> Any:
    """The package with the promise of this name broken, written to a folder that is on `sys.path`, and imported."""
    package = f"mutant_{name}"
    source = Path(topwork.tfhub.__file__).parent
    (folder / package).mkdir()
    for path in source.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for change in MUTATIONS[name]:
            if change.file == path.name:
                found = text.count(change.old)
                assert found == 1, f"{name}: expected once in {path.name}, found {found} times: {change.old}"
                text = text.replace(change.old, change.new)
        (folder / package / path.name).write_text(text.replace("topwork.tfhub", package), encoding="utf-8")
    importlib.invalidate_caches()
    try:
        return importlib.import_module(package)
    finally:
        for module in [key for key in sys.modules if key.split(".")[0] == package]:
            del sys.modules[module]
