"""The jobs of a process: random graphs, and exports of them."""

import dataclasses
import os
import random
import tempfile
import time
import warnings

from tests.fuzz import run as runs
from tests.fuzz.graphs import draw
from tests.fuzz.outcome import FAILED, NOT_RUN, REFUSED, Outcome
from tests.fuzz.program import execute, new_namespace
from tests.fuzz.reduce import reduced
from tests.fuzz.run import kind_of_reason, message_of, place

prepare = runs.prepare

QUANTIZE = {None: 5, "float16": 1, "int8": 2, "int8_full": 1, "int16x8": 1}
TOLERANCE = {
    None: 1e-4,
    "float16": 2e-2,
    "int8": 1.0,
    "int8_full": 1.0,
    "int16x8": 0.5,
}
FULL_INTEGERS = ("int8_full", "int16x8")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a graph is exported.

    Attributes:
        seed: Integer, of weights and inputs.
        is_saved_model: Boolean, a SavedModel or a TFLite file.
        options: Dict of options of the export, as text.
        quantize: What `quantize` is.
        batch: What `batch_size` is.
        streaming: Boolean.
    """

    seed: int
    is_saved_model: bool
    quantize: str | None = None
    batch: int | None = 1
    fused: bool = False
    streaming: bool = False
    verify: bool = True

    @property
    def options(self):
        """The text of the options that are not the default."""
        if self.is_saved_model:
            return "" if self.verify else ", verify=False"
        options = {}
        if self.quantize:
            options["quantize"] = repr(self.quantize)
        if self.quantize in FULL_INTEGERS:
            options["representative_data"] = (
                f"samples_of(inputs, {self.seed}, 20)"
            )
        if self.batch != 1:
            options["batch_size"] = repr(self.batch)
        if self.fused:
            options["recurrent_op"] = '"fused"'
        if self.streaming:
            options["streaming"] = "True"
        if not self.verify:
            options["verify"] = "False"
        return "".join(f", {k}={v}" for k, v in options.items())


def settings_of(seed, number):
    """The settings for a graph, the same ones for the same arguments."""
    generator = random.Random(f"export {seed} {number}")
    quantize = generator.choices(list(QUANTIZE), list(QUANTIZE.values()))[0]
    return Settings(
        seed=number,
        is_saved_model=generator.random() < 0.15,
        quantize=quantize,
        batch=generator.choice((1, 1, 2, None)),
        # LiteRT's fused operation has no activations in 16 bits.
        fused=generator.random() < 0.2 and quantize != "int16x8",
        streaming=generator.random() < 0.15,
        # Of a quantized file, nothing else says whether it is good enough.
        verify=(quantize or "float16") != "float16" or generator.random() < 0.5,
    )


def run(seed, number, before_checks=None):
    """Draws a graph, exports it and runs the file.

    Args:
        seed: Integer, of the run.
        number: Integer, of the graph.
        before_checks: Optional function that is told the text of the graph.
    """
    start = time.perf_counter()
    settings = settings_of(seed, number)
    graph = _drawn(seed, number, settings)
    if before_checks is not None:
        before_checks(graph.text)
    outcome = Outcome(NOT_RUN)
    for text in _texts(graph, settings):
        if outcome.status == NOT_RUN:
            outcome = check(text, settings, text != graph.text)
    outcome.tags = graph.tags
    outcome.seconds = time.perf_counter() - start
    return outcome


def _drawn(seed, number, settings):
    """A graph that can be exported like that, as a rule."""
    lite = not settings.is_saved_model
    limits = {
        "for_export": True,
        "for_stream": lite and settings.streaming,
        "for_fused": lite and settings.fused,
    }
    return draw(seed, number, **{k: True for k, v in limits.items() if v})


def _texts(graph, settings):
    """The graph with any number of time steps, and with a fixed one."""
    is_open = (
        graph.open_text is not None and settings.quantize not in FULL_INTEGERS
    )
    return [graph.open_text, graph.text] if is_open else [graph.text]


def check(text, settings, several_lengths=False):
    """Exports the model that a text makes, and runs the file.

    Args:
        text: String, statements that set `inputs` and `model`.
        settings: `Settings`.
        several_lengths: Boolean, whether to run it at several lengths.

    Returns:
        `Outcome`.
    """
    outcome = Outcome(graph=text)
    seed = settings.seed
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        before = os.getcwd()
        os.chdir(folder)
        try:
            namespace = new_namespace()
            execute(text, namespace)
            outcome.lines.append(f"randomize(model, {seed})")
            execute(outcome.lines[0], namespace)
            execute(
                f"computed(model, random_inputs(inputs, {seed}))", namespace
            )
            lengths = [4, *_lengths(namespace, several_lengths)]
        except Exception as error:
            os.chdir(before)
            return Outcome(NOT_RUN, message=message_of(error), graph=text)
        try:
            for line in _lines(settings, lengths):
                outcome.lines.append(line)
                execute(line, namespace)
        except Exception as error:
            _judge(error, line, settings, outcome)
        finally:
            os.chdir(before)
    return outcome


def _lengths(namespace, several):
    found = []
    for steps in (3, 7) if several else ():
        try:
            text = f"computed(model, random_inputs(inputs, 0, {steps}))"
            execute(text, namespace)
        except Exception:
            continue
        found.append(steps)
    return found


def _lines(settings, lengths):
    if settings.is_saved_model:
        return [
            'path = "saved_model"',
            f"keras_iss.export_saved_model(model, path{settings.options})",
            "assert_saved_model_computes("
            f"model, inputs, path, {settings.seed}, {lengths})",
        ]
    tolerance = TOLERANCE[settings.quantize]
    given = f"model, inputs, path, {settings.batch}, {settings.seed}"
    lines = [
        'path = "model.tflite"',
        f"keras_iss.export_tflite(model, path{settings.options})",
        f"assert_file_computes({given}, {lengths}, {tolerance})",
    ]
    if settings.streaming and not settings.fused:
        lines.append(
            f"assert_stream_computes({given}, {lengths[-1]}, {tolerance})"
        )
    return lines


def _judge(error, line, settings, outcome):
    exporting = "keras_iss.export" in line
    outcome.status = FAILED
    outcome.message = message_of(error)
    what = "SavedModel" if settings.is_saved_model else "TFLite"
    if settings.quantize and not settings.is_saved_model:
        what += f" {settings.quantize}"
    if settings.fused and not settings.is_saved_model:
        what += " fused"
    step = "export" if exporting else "run"
    outcome.kind = f"{what}, {step}: {place(error)}"
    quantized = settings.quantize in ("int8", *FULL_INTEGERS)
    not_good_enough = (
        exporting and quantized and isinstance(error, RuntimeError)
    )
    if exporting and ".cc:" in str(error):
        outcome.kind = f"{what}, export: raw text of the converter"
    elif exporting and (not_good_enough or runs.is_clear(error, outcome.graph)):
        outcome.status = REFUSED
        outcome.kind = f"{what}: {kind_of_reason(str(error))}"


def simplifications(settings):
    """Functions from settings to those with less."""
    for changes in (
        {"streaming": False},
        {"fused": False},
        {"quantize": None},
        {"batch": 1},
        {"verify": True},
    ):
        yield lambda s, changes=changes: dataclasses.replace(s, **changes)


def reduce(seed, number, kind, seconds):
    """A smaller graph whose export fails like that of one.

    Returns:
        `Outcome`, with the text of the smaller graph.
    """
    settings = settings_of(seed, number)
    graph = _drawn(seed, number, settings)
    for text in _texts(graph, settings):
        outcome = reduced(
            text,
            settings,
            kind,
            seconds,
            lambda text, settings, several=text != graph.text: check(
                text, settings, several
            ),
            simplifications,
        )
        if outcome is not None:
            return outcome
    return Outcome(FAILED, kind, "It did not fail again.", graph=graph.text)
