"""Which signatures a TFLite file has, and how its layers loop over time."""

import dataclasses

import keras

from keras_iss._keras.layers import inner_layers
from keras_iss.export.conversion import serving_function
from keras_iss.export.fused_lstm import FusedError, can_be_fused, fused
from keras_iss.export.lowering import LITERT, UNROLLED
from keras_iss.export.streaming import Stepper, StreamingError, begun_anew


@dataclasses.dataclass(frozen=True)
class Form:
    """What a file is made of.

    Attributes:
        serve: The concrete function of whole sequences.
        stepper: The `Stepper` of single time steps, or `None`.
        whole: Whether the file has the signature `serve`.
        keeps_state: Whether it begins where the call before ended, until its
            variables are reset.
        notes: Texts of what to warn of.
    """

    serve: object
    stepper: Stepper | None = None
    whole: bool = True
    keeps_state: bool = False
    notes: tuple = ()


def form_of(function, options):
    """The form of a file.

    Args:
        function: The `Callable` of the model.
        options: The `Options`.

    Returns:
        The `Form`.

    Raises:
        FusedError, StreamingError: that say what the model cannot be.
    """
    if options.micro:
        return _micro_form(function, options)
    stepper = None
    if options.streaming:
        change = fused(reset=False) if options.fused else None
        stepper = Stepper(
            function,
            options.batch_size,
            change,
            options.frames,
            unrolled=options.full_integers,
        )
    whole = not options.step_only
    # Where it is not written, it only says what the model computes.
    unrolled = options.full_integers and whole
    target = UNROLLED if unrolled else LITERT
    if options.fused and whole:
        # Full integers cannot hold the number that clears the state.
        change = fused(reset=not options.full_integers)
        target = dataclasses.replace(target, change_recurrent=change)
    serve = serving_function(function, options.batch_size, target)
    keeps_state = options.fused and (options.full_integers or not whole)
    return Form(serve, stepper, whole, keeps_state)


def _micro_form(function, options):
    """Whole sequences of fused operations, else a single time step.

    What can be neither has its time steps unrolled.
    """
    open_axes = any(None in x.shape[1:] for x in function.inputs)
    recurrent = recurrent_layers(function.model)
    anew = begun_anew(function.model)
    refused = {x.name for x in recurrent if id(x) in anew}
    if not options.streaming and not open_axes:
        if options.fused:
            return _unrolled(function, options, None)
        if all(can_be_fused(x) and x.name not in refused for x in recurrent):
            done = _tried(_unrolled, function, options, refused)
            if not refused:
                return done
    try:
        return _tried(_step, function, options, refused)
    except StreamingError as error:
        if options.streaming:
            raise
        if open_axes:
            raise StreamingError(
                f"{error} For a microcontroller, the alternative is an Input "
                "with a fixed number of time steps."
            ) from None
        done = _tried(_unrolled, function, options, refused)
        names = [
            x.name
            for x in recurrent
            if x.name in refused or not can_be_fused(x)
        ]
        if not names:
            return done
        note = (
            f"`{names[0]}` of `{function.model.name}` is neither LiteRT's "
            "fused LSTM nor can it run step by step: every time step of it "
            "has operations of its own, and the file grows with their number."
        )
        return dataclasses.replace(done, notes=(note,))


def _tried(make, function, options, refused):
    """A form, with every layer fused that turns out to be one."""
    while True:
        before = set(refused)
        try:
            return make(function, options, refused)
        except FusedError:
            if refused == before:
                raise


def _unrolled(function, options, refused):
    fuse = fused(reset=False, refused=refused)
    any_fused = []

    def change(layer):
        own = fuse(layer)
        if own is not None:
            any_fused.append(layer.name)
        return own or {}

    target = dataclasses.replace(UNROLLED, change_recurrent=change)
    serve = serving_function(function, options.batch_size, target)
    return Form(serve, keeps_state=bool(any_fused))


def _step(function, options, refused):
    fuse = fused(reset=False, refused=None if options.fused else refused)
    stepper = Stepper(
        function,
        options.batch_size,
        fuse,
        options.frames or 1,
        unrolled=True,
    )
    # It is not written, but says what the model computes.
    serve = serving_function(function, options.batch_size, LITERT)
    return Form(serve, stepper, whole=False, keeps_state=stepper.keeps_state)


def recurrent_layers(model):
    """List of the recurrent layers of a model, inner ones too."""
    return [x for x in inner_layers(model) if isinstance(x, keras.layers.RNN)]
