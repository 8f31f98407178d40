"""Runs the checks on a random graph, and says what came of it."""

import contextlib
import dataclasses
import gc
import random
import re
import time
import traceback
import warnings

import keras

from tests.fuzz.graphs import draw
from tests.fuzz.outcome import FAILED, NOT_RUN, PASSED, REFUSED, Outcome
from tests.fuzz.program import execute, new_namespace

INCLUDES = {
    ("recurrent",): 5,
    ("recurrent", "dense"): 4,
    ("recurrent", "embedding"): 1,
    ("recurrent", "dense", "embedding"): 3,
    ("dense",): 1,
    ("dense", "embedding"): 1,
    ("embedding",): 0.5,
}

REMOVALS = {
    "components": 6,
    "counts": 2,
    "threshold": 1,
    "weights": 1,
    "in shrink": 2,
}

# Of a graph, how many of them have the check.
PARTS = {
    "training outputs": 0.5,
    "loss": 0.25,
    "file": 0.15,
    "again": 0.2,
    "penalty": 0.15,
    "training": 0.15,
    "compiled": 0.1,
}
# What takes long where steps are compiled.
FEWER = {"tensorflow": 0.4, "jax": 0.4, "torch": 1.0}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is done with a graph.

    Attributes:
        seed: Integer, of weights and inputs.
        include: As in `find_structures`.
        removal: One of `REMOVALS`.
        parts: Frozenset of `PARTS`.
    """

    seed: int
    include: tuple
    removal: str
    parts: frozenset


def settings_of(seed, number):
    """The settings for a graph, the same ones for the same arguments."""
    generator = random.Random(f"settings {seed} {number}")

    def weighted(choices):
        return generator.choices(list(choices), list(choices.values()))[0]

    fewer = FEWER[keras.backend.backend()]
    return Settings(
        seed=number,
        include=weighted(INCLUDES),
        removal=weighted(REMOVALS),
        parts=frozenset(
            name
            for name, part in PARTS.items()
            if generator.random() < part * fewer
        ),
    )


def settings_for(graph, seed, number):
    """Those settings, but for what cannot be compared in this graph."""
    settings = settings_of(seed, number)
    parts, text = settings.parts, graph.text
    if graph.is_random:
        parts = parts - {"training outputs", "training"}
    there = {
        "recurrent": True,
        "dense": "Dense(" in text,
        "embedding": "Embedding(" in text,
    }
    include = tuple(kind for kind in settings.include if there[kind])
    return dataclasses.replace(
        settings, parts=parts, include=include or ("recurrent",)
    )


def run_graph(seed, number, before_checks=None):
    """Draws a graph and checks it.

    Args:
        seed: Integer, of the run.
        number: Integer, of the graph.
        before_checks: Optional function that is told the text of the graph.
    """
    start = time.perf_counter()
    graph = draw(seed, number)
    if before_checks is not None:
        before_checks(graph.text)
    settings = settings_for(graph, seed, number)
    outcome = Outcome(NOT_RUN)
    for text in (graph.open_text, graph.text):
        if text is not None and outcome.status == NOT_RUN:
            outcome = check(text, settings, several_lengths=text != graph.text)
    outcome.tags = graph.tags
    outcome.seconds = time.perf_counter() - start
    return outcome


class StepError(Exception):
    """A step of the checks that failed.

    Attributes:
        step: String, what was done.
        error: Exception.
    """

    def __init__(self, step, error):
        super().__init__(step)
        self.step = step
        self.error = error


def check(text, settings, several_lengths=False):
    """Runs the checks on the text of a graph.

    Args:
        text: String, statements that set `inputs` and `model`.
        settings: `Settings`.
        several_lengths: Boolean, whether to try other lengths.

    Returns:
        `Outcome`.
    """
    steps = _Steps(text, settings)
    outcome = steps.outcome
    try:
        with _quiet():
            steps.begin(several_lengths)
    except Exception as error:
        outcome.status = NOT_RUN
        outcome.message = _one_line(error)
        return outcome
    try:
        with _quiet():
            steps.go_through()
    except StepError as failure:
        _judge(failure, steps, outcome)
    return outcome


class _Steps:
    """Statements that check a model, executed one by one."""

    def __init__(self, text, settings, verify=True):
        self.graph = text
        self.settings = settings
        self.verify = verify
        self.outcome = Outcome()
        self.namespace = {}
        self.lines = []

    def _do(self, step, *lines):
        text = "\n".join(lines)
        self.lines.append(text)
        try:
            execute(text, self.namespace)
        except Exception as error:
            raise StepError(step, error) from error

    def _drop(self, count=1):
        """Leaves lines out of the script that nothing after them needs."""
        del self.lines[len(self.lines) - count :]

    def begin(self, several_lengths=False):
        """Makes the model and runs it: Keras must be able to do both."""
        seed = self.settings.seed
        self.namespace = new_namespace()
        execute(self.graph, self.namespace)
        self._do(
            "begin",
            f"randomize(model, {seed})",
            f"x = random_inputs(inputs, {seed})",
        )
        execute("computed(model, x)", self.namespace)
        if "training outputs" in self.settings.parts:
            execute("computed(model, x, training=True)", self.namespace)
        self.lengths = []
        for steps in (3, 7) if several_lengths else ():
            try:
                execute(
                    f"computed(model, random_inputs(inputs, 0, {steps}))",
                    self.namespace,
                )
            except Exception:
                continue
            self.lengths.append(steps)

    def go_through(self):
        """All checks, one after the other.

        Raises:
            StepError: if one fails.
        """
        parts = self.settings.parts
        if "compiled" in parts:
            self._do(
                "compile",
                'model.compile("adam", "mse")',
                "model.optimizer.build(model.trainable_variables)",
            )
        self._do("find", f"include = {self.settings.include!r}")
        self._do("describe", "before = described(model)")
        self._find()
        self._remove()
        self._do("describe", "weights = values_of(model)")
        self._shrink()
        self._compare()
        self._do("unchanged", "assert_unchanged(model, before, weights)")
        self._drop()
        if "again" in parts:
            self._do("again", "assert_nothing_to_shrink(small, x, include)")
            self._drop()
        if "file" in parts:
            self._do(
                "file",
                "assert_loads(model, small, said, x, own_objects(globals()))",
            )
            self._drop()
        if "penalty" in parts and self.namespace["structures"].free:
            self._do("penalty", "assert_penalty(model, include)")
            self._do("penalty", "assert_penalty(small, include)")
            self._drop(2)
        if "loss" in parts:
            seed = self.settings.seed
            self._do("loss", f"assert_same_loss(model, small, x, {seed})")
            self._drop()
        if "training" in parts:
            self._do(
                "training step",
                "assert_same_training(",
                "    model, small, structures, x, include, "
                f"{self.settings.seed}",
                ")",
            )

    def _find(self):
        self._do(
            "find", "structures = keras_iss.find_structures(model, include)"
        )
        self._do("print", "str(structures)")
        self._drop()
        structures = self.namespace["structures"]
        self.outcome.reasons.update(
            kind_of_reason(structure.pinned) if structure.pinned else "free"
            for structure in structures
        )

    def _remove(self):
        if not self.namespace["structures"].free:
            return
        seed, removal = self.settings.seed, self.settings.removal
        if removal in ("components", "in shrink"):
            self._do("keep", f"keep = random_components(structures, {seed})")
        if removal == "counts":
            self._do("keep", f"keep = random_counts(structures, {seed})")
        given = {
            "threshold": "threshold=middle_length(structures)",
            "weights": "weights=0.85",
        }.get(removal, "keep=keep")
        if removal != "in shrink":
            self._do(
                "prune", f"keras_iss.prune(model, {given}, include=include)"
            )

    def _shrink(self):
        in_shrink = self.settings.removal == "in shrink"
        in_shrink = in_shrink and "keep" in self.namespace
        keep = ", keep=keep" if in_shrink else ""
        given = f"model, include=include{keep}"
        if "file" in self.settings.parts and self.verify:
            text = f"small, said = shrunk_with_warnings({given})"
        else:
            verify = "" if self.verify else ", verify=False"
            text = f"small = keras_iss.shrink({given}{verify})"
        self._do("shrink", text)
        model, small = self.namespace["model"], self.namespace["small"]
        self.outcome.removed = small.count_params() < model.count_params()
        if in_shrink:
            # The original must be as it was, and then be like the smaller.
            self._do("unchanged", "assert_unchanged(model, before, weights)")
            self._drop()
            self._do(
                "prune", "keras_iss.prune(model, keep=keep, include=include)"
            )
            self._do("describe", "weights = values_of(model)")

    def _compare(self):
        self._do("counts", "assert_counts(structures, model, small)")
        self._drop()
        self._do("names", "assert_names(model, small)")
        self._drop()
        self._do("outputs", "assert_same_outputs(model, small, x)")
        self._drop()
        small = self.namespace["small"]
        # Calls in Python that look at the length are followed for that one.
        is_open = any(None in x.shape[1:] for x in small.inputs)
        for steps in self.lengths if is_open else ():
            given = f"random_inputs(inputs, {self.settings.seed}, {steps})"
            self._do("outputs", f"assert_same_outputs(model, small, {given})")
            self._drop()
        if "training outputs" in self.settings.parts:
            self._do(
                "training outputs",
                "assert_same_outputs(model, small, x, training=True)",
            )
            self._drop()


def _judge(failure, steps, outcome):
    """Whether it is a failure, and of what kind."""
    step, error = failure.step, failure.error
    outcome.status = FAILED
    outcome.message = message_of(error)
    outcome.graph, outcome.lines = steps.graph, steps.lines
    outcome.kind = f"{step}: {place(error)}"
    if is_clear(error, steps.graph) and step != "unchanged":
        outcome.status = REFUSED
        outcome.kind = f"{step}: {kind_of_reason(str(error))}"
    elif "differs by" in str(error) and isinstance(error, AssertionError):
        again = _in_double(steps)
        if again is None:
            # Rounding; what comes after it was not checked.
            outcome.status, outcome.kind = PASSED, ""
            return
        outcome.double = True
        outcome.graph, outcome.lines = again.graph, again.lines
        outcome.message = message_of(again.error)
        outcome.kind = f"{again.step}: {place(again.error)}"
    elif type(error).__name__ == "VerificationError":
        again = _in_double(steps, verify=False)
        wrong = again is not None
        outcome.kind = (
            "the comparison in shrink: "
            f"{'wrong numbers' if wrong else 'a false alarm'}"
        )


@dataclasses.dataclass
class _Again:
    step: str
    error: Exception
    graph: str
    lines: list


def _in_double(steps, verify=True):
    """The same in double precision, in which rounding is no excuse.

    Returns:
        What fails, or `None`.
    """
    text = in_double(steps.graph)
    again = _Steps(text, steps.settings, verify)
    with double_precision():
        try:
            again.begin()
        except Exception as error:
            return _Again("in double precision", error, text, again.lines)
        again.lengths = steps.lengths
        try:
            again.go_through()
        except StepError as failure:
            return _Again(failure.step, failure.error, text, again.lines)
    return None


def in_double(text):
    """Statements with the dtypes in them replaced."""
    return re.sub(r'"(mixed_)?b?float(16|32)"', '"float64"', text)


@contextlib.contextmanager
def double_precision():
    """Models that are made inside compute in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    _jax_in_double(True)
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)
        _jax_in_double(False)


def _jax_in_double(value):
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", value)


def simplifications(settings):
    """Functions from settings to those with less."""
    for part in sorted(settings.parts):
        yield lambda s, part=part: dataclasses.replace(
            s, parts=s.parts - {part}
        )
    yield lambda s: dataclasses.replace(s, include=("recurrent",))
    yield lambda s: dataclasses.replace(s, removal="components")


@contextlib.contextmanager
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_clear(error, graph):
    """Whether an error is one of ours that names what it is about."""
    if not isinstance(error, (ValueError, TypeError)):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "/keras_iss/" not in frames[-1].filename:
        return False
    known = set(re.findall(r"\w+", graph))
    quoted = re.findall(r"`([\w/]+)`", str(error))
    return any(known & set(name.split("/")) for name in quoted)


def place(error):
    """The type of an error, and where in the package it came from."""
    if isinstance(error, AssertionError):
        said = str(error).partition(":")[0].partition(", ")[0]
        return re.sub(r"`[^`]*`|[-+\d.]*\d\S*", "…", said)[:80]
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/keras_iss/" in frame.filename
    ]
    name = type(error).__name__
    if not inside:
        return f"{name} outside the package"
    frame = inside[-1]
    return f"{name} in {frame.filename.rpartition('/')[2]}, {frame.name}"


def kind_of_reason(reason):
    """A reason without the names in it."""
    text = re.sub(r"\(\w+\) ?", "", reason.splitlines()[0])
    text = re.sub(r"`[^`]*`|\d[\d.]*%?", "…", text)
    return re.sub(r"…(, …)+", "…", text)[:90]


def message_of(error):
    lines = traceback.format_exception_only(error)
    return "".join(lines).strip()[:2000]


def _one_line(error):
    return message_of(error).splitlines()[0][:200]


def prepare():
    """Sets up this process."""
    # Which hides in whose code an error is raised.
    keras.config.disable_traceback_filtering()
    warnings.simplefilter("ignore")
    # What is there now stays, and need not be looked through again.
    gc.collect()
    gc.freeze()
