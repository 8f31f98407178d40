"""All that the files beside this one use of Keras' private parts.

`tests/test_keras_contract.py` fails where the installed Keras lacks a part,
and where this list and the files differ. Whoever uses another part adds it
here.
"""

import typing


class Use(typing.NamedTuple):
    """A private part of Keras, and who uses it.

    Attributes:
        name: String. Of an import: the dotted name.
        files: String, the files of this folder that use it.
        of: String, what has it: a key of the objects that the test makes. An
            empty one if nothing is lost where Keras lacks it.
        backends: String, the backends on which it is there.
        since: String, the first Keras version that has it.
    """

    name: str
    files: str
    of: str = ""
    backends: str = "tensorflow jax torch"
    since: str = ""


_SRC = "keras.src."

IMPORTS = [
    Use(_SRC + "backend.common.global_state", "graphs names variables"),
    Use(_SRC + "backend.common.masking.get_keras_mask", "masks"),
    Use(_SRC + "backend.common.masking.set_keras_mask", "masks"),
    Use(_SRC + "layers.layer.CallContext", "graphs"),
    Use(_SRC + "layers.rnn.dropout_rnn_cell.DropoutRNNCell", "cells"),
    Use(_SRC + "models.functional.Functional", "graphs"),
    Use(_SRC + "models.functional.functional_like_constructor", "models"),
    Use(_SRC + "ops.node.Node", "copies"),
    Use(_SRC + "ops.operation.Operation", "copies"),
    Use(_SRC + "random.seed_generator.SeedGenerator", "copies"),
    Use(_SRC + "saving.serialization_lib.ObjectSharingScope", "saving"),
    Use(_SRC + "saving.serialization_lib.SafeModeScope", "configs"),
    Use(_SRC + "saving.serialization_lib.deserialize_keras_object", "saving"),
    Use(_SRC + "saving.serialization_lib.serialize_keras_object", "saving"),
    Use(_SRC + "trainers.data_adapters.array_data_adapter", "data"),
    Use(_SRC + "trainers.data_adapters.array_slicing", "data"),
    Use(_SRC + "trainers.data_adapters.get_data_adapter", "data"),
    Use(_SRC + "utils.tracking.Tracker", "copies"),
]

# What Keras keeps under a name for all layers, outside of any.
GLOBALS = [
    Use("current_call_ctx", "graphs"),
    Use("object_name_uids", "names"),
    Use("uninitialized_variables", "variables"),
]

ATTRIBUTES = [
    # Layers and models.
    Use("_already_warned", "layers"),
    Use("_build_shapes_dict", "layers", of="layer"),
    Use("_call_has_mask_arg", "layers", of="layer"),
    Use("_call_has_training_arg", "layers", of="layer"),
    Use("_dtype_policy", "overrides", of="layer"),
    Use("_flatten_layers", "graphs layers masks", of="layer"),
    Use("_inbound_nodes", "copies graphs masks", of="layer"),
    Use("_layers", "layers models", of="layer"),
    Use("_lock_state", "layers", of="layer"),
    Use("_loss_ids", "graphs", of="layer"),
    Use("_losses", "graphs", of="layer"),
    Use("_modules", "layers", of="layer", backends="torch"),
    Use("_non_trainable_variables", "layers", of="layer"),
    Use("_open_name_scope", "layers scopes", of="layer"),
    Use("_outbound_nodes", "copies graphs", of="layer"),
    Use("_post_build", "layers", of="layer"),
    Use("_seed_generators", "hidden_states layers", of="layer"),
    Use("_track_variable", "layers", of="layer"),
    Use("_tracker", "layers", of="layer"),
    Use("_trainable", "layers", of="layer"),
    Use("_trainable_variables", "layers optimizer_state", of="layer"),
    Use("_compile_config", "compiling", of="model"),
    Use("_inputs_struct", "graphs models", of="model"),
    Use("_nodes", "models", of="model"),
    Use("_nodes_by_depth", "graphs tf_keras_graphs", of="model"),
    Use("_operations", "models", of="model"),
    Use("_outputs_struct", "graphs models", of="model"),
    Use("_manual_input_spec", "overrides", of="model with an input_spec"),
    Use("_functional", "graphs", of="sequential"),
    # Trained models.
    Use("_distribute_strategy", "distribution", "model", "tensorflow"),
    Use("_jax_state", "layers step_functions", "trained model", "jax"),
    Use("_jax_state_synced", "jax_state step_functions", "model", "jax"),
    # Weights.
    Use("_embeddings", "weights", of="embedding"),
    Use("_gate_dense", "weights", of="gated attention", since="3.14"),
    Use("_kernel", "weights", of="layer"),
    Use("_calculate_score_mask", "overrides", of="dot attention"),
    Use("_calculate_scores", "overrides", of="dot attention"),
    Use("_compute_causal_mask", "overrides", of="attention"),
    Use("_key_dense", "weights", of="attention"),
    Use("_output_dense", "weights", of="attention"),
    Use("_output_shape", "weights", of="attention"),
    Use("_query_dense", "weights", of="attention"),
    Use("_use_gate", "weights", of="attention", since="3.14"),
    Use("_value_dense", "weights", of="attention"),
    Use("_can_attempt_fused_gru", "overrides", "bidirectional", since="3.15"),
    Use("_can_attempt_fused_lstm", "overrides", "bidirectional", since="3.15"),
    # Tensors, variables and generators.
    Use("_initial_seed", "layers", of="seed generator"),
    Use("_keras_history", "graphs", of="tensor"),
    Use("_value", "distribution jax_state step_functions", of="variable"),
    # Optimizers.
    Use("_accumulators", "optimizer_state", of="adagrad"),
    Use("_c", "optimizer_state", of="adafactor"),
    Use("_distribution_strategy", "distribution", "optimizer", "tensorflow"),
    Use("_exclude_from_weight_decay", "optimizer_state", of="excluding"),
    Use("_exclude_from_weight_decay_pattern", "optimizer_state", "excluding"),
    Use("_iterations", "optimizer_state", of="optimizer"),
    Use("_learning_rate", "optimizer_state", of="optimizer"),
    Use("_r", "optimizer_state", of="adafactor"),
    Use("_v", "optimizer_state", of="adafactor"),
    Use("_var_key", "optimizer_state", of="optimizer"),
    Use("_variables", "optimizer_state", of="optimizer"),
    # Of TensorFlow, on a layer that holds variables.
    Use("_self_name_based_restores", "layers"),
    Use("_self_saveable_object_factories", "layers"),
    Use("_self_unconditional_checkpoint_dependencies", "layers"),
    Use("_self_unconditional_deferred_dependencies", "layers"),
    Use("_self_unconditional_dependency_names", "layers"),
    Use("_self_update_uid", "layers"),
]

# Without an underscore, and in no documentation.
UNDOCUMENTED = [
    Use("symbolic_call", "masks", of="layer"),
    Use("make_test_function", "step_functions", of="model"),
    Use("make_train_function", "step_functions", of="model"),
    Use("test_function", "step_functions", of="trained model"),
    Use("train_function", "step_functions", of="trained model"),
    Use("jax_state_sync", "jax_state step_functions", "model", "jax"),
    Use("arguments", "graphs", of="node"),
    Use("input_tensors", "masks", of="node"),
    Use("is_input", "graphs", of="node"),
    Use("operation", "graphs", of="node"),
    Use("outputs", "graphs masks", of="node"),
    Use("get_numpy_iterator", "data", of="data adapter"),
    Use("on_epoch_begin", "data", of="data adapter"),
    Use("on_epoch_end", "data", of="data adapter"),
]
