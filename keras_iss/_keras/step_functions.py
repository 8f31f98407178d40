"""The functions that `fit` and `evaluate` call for each step.

Keras asks a model once for its function, by `make_train_function` or
`make_test_function`. For each step it then calls the callbacks'
`on_train_batch_begin` (`on_test_batch_begin`), and the model's attribute
`train_function` (`test_function`). On JAX that takes the values of the model's
variables, whose memory it uses, and gives the new ones: in between, the model
itself has none.
"""

import contextlib

import keras

from keras_iss._keras.interrupts import interrupts_put_off

_STATE = {
    "train": (
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    ),
    "test": (
        "trainable_variables",
        "non_trainable_variables",
        "metrics_variables",
    ),
}


class AnnouncedStep:
    """A step that is taken in a scope of its own, where it was announced.

    `announce`, called by a callback at the beginning of a batch, puts this
    object in the place of the model's function, for one call. So the scope
    holds while a step of this very training runs, and at no other time. A step
    that was announced and never taken, as the training was interrupted in
    between, is withdrawn by whoever asks the model for its function next.

    The step is compiled in the scope, beside that of the model, which is left
    as it was.

    On JAX, the values of the variables survive an error or an interrupt during
    the step.

    Args:
        model: A compiled `keras.Model`.
        kind: `"train"` or `"test"`.
        scope: Optional object whose `enter()` changes the model for a step and
            whose `leave()` changes it back, called twice does no harm, and
            whose `values()` gives, by the `id` of a variable that the model
            has in the scope only, its value. Without it, the step is the
            model's own.

    Attributes:
        taken: Boolean, whether the step that was announced last was taken.
    """

    def __init__(self, model, kind="train", scope=None):
        self._model = model
        self._kind = kind
        self._scope = scope
        self._function = f"{kind}_function"
        self._maker = f"make_{kind}_function"
        self._plain = None
        self._beside = None
        self._own = None
        self._translation = None
        self.taken = True

    @property
    def is_made(self):
        """Boolean, whether a step was made in the scope."""
        return self._own is not None

    def announce(self):
        """Has the next step be this one, unless another is announced."""
        known = vars(self._model)
        plain = known.get(self._function)
        if plain is None or isinstance(plain, AnnouncedStep):
            return
        self._plain = plain
        self.taken = False
        # In this order: alone, the second would be there for good.
        known[self._maker] = self._remake
        known[self._function] = self

    def withdraw(self):
        """Takes an announcement back. Twice does no harm."""
        known = vars(self._model)
        if known.get(self._function) is self:
            known[self._function] = self._plain
        if getattr(known.get(self._maker), "__self__", None) is self:
            del known[self._maker]

    def _remake(self, force=False):
        self.withdraw()
        return getattr(self._model, self._maker)(force)

    def __call__(self, *arguments):
        self.withdraw()
        self.taken = True
        if keras.backend.backend() == "jax":
            return self._take_on_jax(*arguments)
        return self._within(lambda: self._own(*arguments))

    def _within(self, step, values=()):
        """Calls a function in the scope, with `_own` made there.

        Args:
            step: The function.
            values: Pairs of a variable and its value, of variables that have
                given theirs away.
        """
        if self._scope is None:
            self._own = self._plain
            return step()
        try:
            self._scope.enter()
            if self._beside is not self._plain:
                # With a distribution, Keras looks at where values lie.
                with _with_values(values):
                    self._own = self._made()
                self._beside = self._plain
            return step()
        finally:
            try:
                self._scope.leave()
            finally:
                # An interrupt may have come in the first.
                self._scope.leave()

    def _made(self):
        """The function that the model makes in the scope."""
        try:
            getattr(self._model, self._maker)(force=True)
            return vars(self._model)[self._function]
        finally:
            vars(self._model)[self._function] = self._plain

    def _take_on_jax(self, state, iterator):
        """Takes the step with the values that the scope adds.

        Batch by batch: so an error in the data comes before the memory of the
        state is given away.
        """
        logs = None
        count = max(self._model.steps_per_execution, 1)
        try:
            for number in range(count):
                try:
                    batch = next(iterator)
                except StopIteration:
                    if not number:
                        raise
                    break
                with interrupts_put_off():
                    logs, state = self._with_added_values(state, batch)
                    _keep(self._model, self._kind, state)
        except BaseException:
            if not _is_lost(state):
                _keep(self._model, self._kind, state)
            raise
        return logs, state

    def _with_added_values(self, state, batch):
        outside = None
        if self._scope is not None and (
            self._translation is None
            or self._beside is not self._plain
            or not self._translation.fits(state)
        ):
            outside = _variables(self._model, self._kind)

        def step():
            if self._scope is None:
                return self._own(state, iter([batch]))
            if outside is not None:
                self._translation = _Translation(
                    outside, _variables(self._model, self._kind)
                )
            inner = self._translation.into(state, self._scope.values())
            logs, inner = self._own(inner, iter([batch]))
            return logs, self._translation.out_of(inner, state)

        values = () if outside is None else _paired(outside, state)
        return self._within(step, values)


def _with_values(values):
    """Variables have these values inside, wherever their own are."""
    if not values:
        return contextlib.nullcontext()
    return keras.StatelessScope(state_mapping=values)


def _paired(variables, state):
    """Pairs of a variable and its value, of nested lists of both."""
    return list(zip(keras.tree.flatten(variables), keras.tree.flatten(state)))


class StateGuard:
    """Keeps the values of a model's variables through an interrupted step.

    On JAX, where Keras loses them; elsewhere the model has them at any time.

    Args:
        model: A compiled `keras.Model`.
    """

    def __init__(self, model):
        self._model = model
        self._steps = {}
        self._values = []
        if keras.backend.backend() == "jax":
            self._steps = {kind: AnnouncedStep(model, kind) for kind in _STATE}

    def announce(self, kind):
        """Has the next step be a guarded one.

        Args:
            kind: `"train"` or `"test"`.
        """
        if not self._steps:
            return
        if self._model._jax_state_synced:
            # The step takes these, and leaves the variables without any.
            self._values = [
                (v, v._value)
                for part in _variables(self._model, kind)
                for v in part
            ]
        self._steps[kind].announce()

    def put_back(self):
        """Gives the variables their values, where they have none."""
        if not self._steps:
            return
        self._model.jax_state_sync()
        for variable, value in self._values:
            if variable._value is None and not value.is_deleted():
                variable._value = value


class _Translation:
    """Between the values of a model's variables outside and in a scope.

    Args:
        outside: Lists of variables, one for each part of the state.
        inside: The same, in the scope.
    """

    def __init__(self, outside, inside):
        self._sizes = [len(part) for part in outside]
        self._into = list(map(self._places, inside, outside))
        self._out_of = list(map(self._places, outside, inside))
        self._inside = [[id(v) for v in part] for part in inside]

    @staticmethod
    def _places(wanted, given):
        """Where each wanted variable is among those given, else `None`."""
        if list(map(id, wanted)) == list(map(id, given)):
            return None
        at = {id(v): place for place, v in enumerate(given)}
        return [at.get(id(v)) for v in wanted]

    def fits(self, state):
        """Whether a state has the parts of the one outside."""
        return [len(part) for part in state] == self._sizes

    def into(self, state, values):
        """The state in the scope."""
        return tuple(
            part
            if places is None
            else [
                values[key] if place is None else part[place]
                for key, place in zip(keys, places)
            ]
            for part, places, keys in zip(state, self._into, self._inside)
        )

    def out_of(self, inner, before):
        """The state outside; what the scope has not stays as it was."""
        return tuple(
            part
            if places is None
            else [
                old if place is None else part[place]
                for old, place in zip(olds, places)
            ]
            for part, places, olds in zip(inner, self._out_of, before)
        )


def _variables(model, kind):
    """The variables of a model whose values its steps take on JAX."""
    parts = {
        "trainable_variables": model.trainable_variables,
        "non_trainable_variables": model.non_trainable_variables,
        "metrics_variables": model.metrics_variables,
    }
    if kind == "train":
        parts["optimizer_variables"] = model.optimizer.variables
    return [parts[name] for name in _STATE[kind]]


def _keep(model, kind, state):
    """Has `fit` put these values into the variables, whatever ends it."""
    vars(model)["_jax_state"] = dict(zip(_STATE[kind], state))
    vars(model)["_jax_state_synced"] = False


def _is_lost(state):
    """Whether the memory of a state was given away."""
    return any(
        value.is_deleted()
        for part in state
        for value in part
        if hasattr(value, "is_deleted")
    )
