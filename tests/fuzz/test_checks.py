"""The checks notice what they are for; failures become short scripts."""

import os
import subprocess
import sys
import warnings

import keras
import pytest

import keras_iss
from tests.fuzz import checks, run, script, surgery
from tests.fuzz.outcome import FAILED, NOT_RUN, PASSED, REFUSED
from tests.fuzz.reduce import reduced, without_unused
from tests.fuzz.run import Settings, check

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="once is enough"
)

GRAPH = """
x1 = keras.Input((4, 3), name="x1")
x2 = keras.Input((4,), dtype="int32", name="x2")
embedding3 = layers.Embedding(10, 3, mask_zero=True, name="embedding3")
h4 = embedding3(x2)
lstm5 = layers.LSTM(4, return_sequences=True, name="lstm5")
h6 = lstm5(h4)
gru7 = layers.GRU(3, return_sequences=True, name="gru7")
h8 = gru7(x1)
dense9 = layers.Dense(2, name="dense9")
h10 = dense9(h6)
dense11 = layers.Dense(2, name="dense11")
h12 = dense11(h8)
inputs = [x1, x2]
model = keras.Model(inputs, [h10, h12], name="model")
"""

# With which units of both layers are removed.
SEED = 1


def settings(*parts, removal="components", include=("recurrent",)):
    return Settings(SEED, include, removal, frozenset(parts))


@pytest.fixture(autouse=True)
def _whole_tracebacks():
    keras.config.disable_traceback_filtering()
    yield
    keras.config.enable_traceback_filtering()


@pytest.mark.parametrize("removal", run.REMOVALS)
def test_a_good_graph_passes_all_checks(removal):
    outcome = check(GRAPH, settings(*run.PARTS, removal=removal))
    assert (outcome.status, outcome.message) == (PASSED, "")
    assert outcome.removed
    assert outcome.reasons == {"free": 2}


def tampered(monkeypatch, change):
    """Lets `shrink` give something else than it should."""
    shrink = keras_iss.shrink

    def shrink_and_change(model, *args, **kwargs):
        small = shrink(model, *args, **kwargs)
        return change(model, small) or small

    monkeypatch.setattr(keras_iss, "shrink", shrink_and_change)


def another_weight(model, small):
    variable = small.get_layer("dense9").kernel
    variable.assign(variable + 1e-3)


def a_weight_of_the_original(model, small):
    variable = model.get_layer("dense9").kernel
    variable.assign(2.0 * variable)


def a_call_of_the_original(model, small):
    model.get_layer("dense9")(keras.Input((4, 4)))


def an_attribute_of_the_original(model, small):
    model.get_layer("dense9").left = 1


def another_name(model, small):
    return keras.Model(small.input, small.output, name="other")


def no_mask(model, small):
    small.get_layer("dense9").supports_masking = False


def one_unit_too_many(model, small):
    extra = keras.layers.Dense(1, name="extra")(small.output[1])
    outputs = [small.output[0], small.output[1] + 0 * extra]
    return keras.Model(small.input, outputs, name="model")


def a_crash(model, small):
    raise KeyError("lstm5")


TAMPERINGS = {
    another_weight: "outputs: output … differs by …",
    a_weight_of_the_original: "outputs: output … differs by …",
    a_call_of_the_original: "unchanged: calls",
    an_attribute_of_the_original: "unchanged: attributes",
    another_name: "names: ",
    no_mask: "outputs: the mask of output … is None",
    one_unit_too_many: "counts: … weights instead of …",
    a_crash: "shrink: KeyError outside the package",
}


@pytest.mark.parametrize("change", TAMPERINGS, ids=lambda x: x.__name__)
def test_a_fault_is_noticed(monkeypatch, change):
    tampered(monkeypatch, change)
    outcome = check(GRAPH, settings())
    assert outcome.status == FAILED
    assert outcome.kind.startswith(TAMPERINGS[change])


def test_rounding_is_no_fault(monkeypatch):
    """Numbers that cancel each other leave nothing but rounding."""

    def rounded(model, small):
        if keras.config.floatx() == "float32":
            for variable in small.weights:
                variable.assign(variable * (1 + 2e-7))

    graph = GRAPH.replace(
        "inputs = ", "h12 = (h12 * 1e5 + h10) - 1e5 * h12\ninputs = "
    )
    tampered(monkeypatch, rounded)
    assert check(graph, settings()).status == PASSED
    tampered(monkeypatch, another_weight)
    assert check(graph, settings()).status == FAILED


PLANTED = """
class Planted(layers.Layer):

    def call(self, x):
        return ops.softmax(x)

@keras_iss.register_rule(Planted)
def planted(call, x):
    return call.output({-1: x.axes[-1]})
planted13 = Planted(name="planted13")
h14 = planted13(h6)
dense15 = layers.Dense(2, name="dense15")
h16 = dense15(h14)
"""

FAULTY = GRAPH.replace("inputs = ", PLANTED + "inputs = ").replace(
    "[h10, h12]", "[h10, h12, h16]"
)


def test_a_wrong_rule_is_noticed_by_the_comparison_and_by_the_checks(
    monkeypatch,
):
    outcome = check(FAULTY, settings())
    assert outcome.kind == "the comparison in shrink: wrong numbers"
    monkeypatch.setattr(
        "keras_iss.surgery.verification.verify", lambda *_: None
    )
    outcome = check(FAULTY, settings())
    assert outcome.kind == "outputs: output … differs by …"
    assert outcome.double


def test_a_false_alarm_of_the_comparison_is_a_fault(monkeypatch):
    from keras_iss.surgery.verification import VerificationError

    def alarm(*args):
        raise VerificationError("Something is wrong.")

    monkeypatch.setattr("keras_iss.surgery.verification.verify", alarm)
    outcome = check(GRAPH, settings())
    assert outcome.kind == "the comparison in shrink: a false alarm"


def test_a_clear_error_is_a_refusal_and_an_unclear_one_a_fault(monkeypatch):
    outcome = check(GRAPH, settings(include=("dense", "nothing")))
    assert outcome.status == FAILED  # It names no layer.
    without = GRAPH.replace("layers.LSTM", "layers.Dense").replace(
        "layers.GRU", "layers.Dense"
    )
    without = without.replace(", return_sequences=True", "")
    outcome = check(without, settings())
    assert outcome.status == REFUSED
    assert "has no layer of the kinds" in outcome.message


def test_what_keras_cannot_run_is_no_fault():
    broken = GRAPH.replace("h12]", "ops.reshape(h12, (2, 7))]")
    outcome = check(broken, settings())
    assert outcome.status == NOT_RUN
    assert check("model = nothing", settings()).status == NOT_RUN


def simplified(text, given):
    return reduced(
        text,
        given,
        check(text, given).kind,
        300,
        check,
        run.simplifications,
    )


@pytest.mark.whole
def test_a_failure_becomes_a_short_script_that_runs_by_itself(tmp_path):
    smaller = simplified(FAULTY, settings("loss", removal="counts"))
    lines = smaller.graph.split("\n")
    made = [line for line in lines if " = keras.Input(" in line]
    assert len(made) == 1
    assert "gru7" not in smaller.graph and "dense11" not in smaller.graph
    assert "assert_same_loss" not in smaller.text
    text = script.script(smaller.text, "What fails", keras.backend.backend())
    assert len(text.splitlines()) < 90
    path = tmp_path / "failure.py"
    path.write_text(text)
    root = os.path.dirname(os.path.dirname(keras_iss.__file__))
    result = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert result.returncode == 1
    assert "does not compute what `model`" in result.stderr


def test_a_script_holds_the_definitions_that_it_uses_and_no_others():
    text = 'h = layers.RNN(RuledCell(3), activation=scaled_by(2.0))\nprint("x")'
    names = [
        line.split()[1].partition("(")[0].rstrip(":")
        for source in script.definitions(text)
        for line in source.splitlines()
        if line.startswith(("class ", "def "))
    ]
    assert names == ["scaled_by", "MinimalCell", "RuledCell", "cell_rule"]


def test_statements_that_nothing_reads_are_left_out():
    text = without_unused(
        "a1 = 1\nb2 = a1\nc3 = 2\nc3.x = 3\nmodel = b2\nd4 = c3"
    )
    assert text == "a1 = 1\nb2 = a1\nmodel = b2"


def test_a_graph_can_be_repeated_alone():
    first, again = (surgery.run(11, 5) for _ in range(2))
    assert (first.status, first.kind) == (again.status, again.kind)
    assert first.tags == again.tags


def test_checks_leave_no_settings_behind():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(FAULTY, settings())
    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"
    dtype = keras.backend.standardize_dtype(keras.ops.ones(1).dtype)
    assert dtype == "float32"


@pytest.mark.parametrize("trainable", [True, False])
def test_a_frozen_layer_has_no_penalty(trainable):
    x = keras.Input((4, 3))
    h = keras.layers.LSTM(2, trainable=trainable)(x)
    model = keras.Model(x, keras.layers.Dense(2)(h))
    checks.assert_penalty(model, ("recurrent",))
