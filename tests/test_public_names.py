"""What is public is annotated, and described whole."""

import inspect

import keras
import pytest

import keras_iss
from keras_iss import inspection, layers, structures, tracing

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the same on every backend"
)

CLASSES = (
    keras_iss.CostTable,
    keras_iss.ISSBudget,
    keras_iss.ISSLogger,
    keras_iss.ISSPruneCallback,
    keras_iss.ISSRegularizer,
    keras_iss.ProximalISS,
    layers.RHN,
    layers.RHNCell,
    structures.Slice,
    structures.Structure,
    structures.Structures,
    tracing.Axis,
    tracing.Traced,
)
# Of a class, what Keras does not call.
METHODS = {
    keras_iss.CostTable: (
        *("latency_ms", "size_kb", "timed", "save", "load"),
        *("from_benchmark_model", "from_vela"),
    ),
    keras_iss.ISSRegularizer: ("attach", "detach"),
    keras_iss.ProximalISS: ("attach",),
    structures.Slice: ("owners", "per_component"),
    structures.Structure: ("norms", "removed"),
    structures.Structures: ("counts", "items", "keys", "values"),
    tracing.Axis: ("fixed", "repeat", "where", "with_zero"),
    tracing.Call: (
        *("units", "unbound", "weight", "bias", "state", "statistic"),
        *("tie", "pin", "pin_all_but", "may_go", "only_one", "contract"),
        *("set_size", "set_value", "inner", "child", "output", "outputs"),
        *("output_shapes", "same_size", "at_least", "mask_is_known"),
    ),
    tracing.Traced: ("of", "axis", "replace"),
}
FUNCTIONS = {
    "benchmark": keras_iss.benchmark,
    "compare": keras_iss.compare,
    "evaluate": keras_iss.evaluate,
    "estimate_importance": keras_iss.estimate_importance,
    "export_saved_model": keras_iss.export_saved_model,
    "export_tflite": keras_iss.export_tflite,
    "find_structures": keras_iss.find_structures,
    "fit": keras_iss.fit,
    "from_torch": keras_iss.from_torch,
    "measure_costs": keras_iss.measure_costs,
    "prune": keras_iss.prune,
    "report": keras_iss.report,
    "register_rule": keras_iss.register_rule,
    "shrink": keras_iss.shrink,
    "write_cost_probes": keras_iss.write_cost_probes,
    "from_tf_keras": keras_iss.tfmot.from_tf_keras,
    "to_tf_keras": keras_iss.tfmot.to_tf_keras,
    "inspect_model": inspection.inspect_model,
    "keeps_zero": tracing.keeps_zero,
    "pin_unless_elementwise": tracing.pin_unless_elementwise,
    "run_over_time": tracing.run_over_time,
    **{f"{made.__name__}()": made.__init__ for made in CLASSES},
    **{
        f"{made.__name__}.{name}": getattr(made, name)
        for made, names in METHODS.items()
        for name in names
    },
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_and_what_is_returned_has_a_type(name):
    signature = inspect.signature(FUNCTIONS[name])
    bare = [
        argument.name
        for argument in signature.parameters.values()
        if argument.annotation is inspect.Parameter.empty
        and argument.name != "self"
        # Handed on.
        and argument.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    assert not bare
    assert name.endswith("()") or (
        signature.return_annotation is not inspect.Signature.empty
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described(name):
    function = FUNCTIONS[name]
    made = next((c for c in CLASSES if c.__init__ is function), function)
    described = inspect.getdoc(made)
    for argument in inspect.signature(function).parameters.values():
        handed_on = argument.kind is inspect.Parameter.VAR_KEYWORD
        if argument.name != "self" and not handed_on:
            assert argument.name in described, argument.name
