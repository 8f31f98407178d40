"""Language modelling as a task: streams of words, perplexity."""

import contextlib
import dataclasses
import math

import keras
import numpy as np

from paper import experiment, language_models, text


@dataclasses.dataclass(frozen=True)
class Plan:
    """The recipe of a language model.

    The loss is summed over the time steps, as in the paper's code: so are
    its learning rates, its clipping and its strengths.

    Attributes:
        units: Tuple of integers, the sizes of the LSTMs; or one, the width
            of a highway network.
        depth: Integer, micro-layers of a highway network.
        vocabulary: Integer.
        batch: Integer, streams side by side.
        steps: Integer, time steps of a batch.
        epochs: Integer.
        parts: Integer, parts of an epoch; after each, a checkpoint.
        optimizer: `"sgd"` or `"adam"`.
        rate: Float, the learning rate at its highest.
        schedule: `"hold"`: `decay` is applied every epoch after `hold`
            epochs; `"thirds"`: after every third of the epochs; `"cosine"`:
            up in a twentieth of the parts, then down to a twentieth.
        clip: Float, the norm that the gradient is clipped to.
        dropout: Float, or four for a highway network.
        l2: Float.
        threshold: Float, single weights below it are zeroed.
        short: Float, components of a shorter group norm are cut out.
    """

    units: tuple
    depth: int = 10
    vocabulary: int = 10_000
    batch: int = 20
    steps: int = 35
    epochs: int = 55
    parts: int = 10
    optimizer: str = "sgd"
    rate: float = 1.0
    schedule: str = "hold"
    hold: int = 14
    decay: float = 1 / 1.15
    clip: float = 10.0
    dropout: float | tuple = 0.65
    l2: float = 0.0
    threshold: float = 1e-4
    short: float = 1e-3


class LanguageTask(experiment.Task):
    """What stacked LSTMs and highway networks have in common.

    Args:
        plan: `Plan`.
        rows: Dict from name to `experiment.Row`.
        corpus: `text.Corpus`.
        seed: Integer.
    """

    def __init__(self, plan, rows, corpus, seed=0):
        if len(corpus.words) < plan.vocabulary:
            plan = dataclasses.replace(plan, vocabulary=len(corpus.words))
        self.plan = plan
        self.rows = rows
        self.corpus = corpus
        self.source = corpus.source
        self.seed = seed

    def build(self, row, sizes):
        model = self.network(row, sizes, self.plan.batch, self.plan.steps)
        kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}
        model.compile(
            kind[self.plan.optimizer](
                self.plan.rate, global_clipnorm=self.plan.clip
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            # The sum over the time steps.
            loss_weights=[float(self.plan.steps)],
            metrics=[
                keras.metrics.SparseCategoricalCrossentropy(
                    from_logits=True, name="crossentropy"
                )
            ],
        )
        return model

    def _streams(self, part):
        tokens = getattr(self.corpus, part)
        return text.streams(tokens, self.plan.batch, self.plan.steps)

    def batches(self, part):
        inputs, targets = self._streams("train")
        within = part % self.plan.parts
        if len(inputs) < self.plan.parts:
            raise SystemExit(
                f"{len(inputs)} batches are too few for {self.plan.parts} "
                "parts of an epoch: take more text or a smaller batch."
            )
        chosen = np.array_split(np.arange(len(inputs)), self.plan.parts)[within]
        return self._fed(inputs[chosen], targets[chosen])

    def _fed(self, inputs, targets):
        steps = self.plan.steps
        return {
            "x": inputs.reshape(-1, steps),
            "y": targets.reshape(-1, steps),
            "batch_size": self.plan.batch,
            "shuffle": False,
        }

    def learning_rate(self, row, part):
        plan = self.plan
        epoch = part // plan.parts
        if plan.schedule == "hold":
            return plan.rate * plan.decay ** max(epoch + 1 - plan.hold, 0)
        if plan.schedule == "thirds":
            third = max(plan.epochs // 3, 1)
            return plan.rate * plan.decay ** (epoch // third)
        at = (part + 0.5) / (plan.epochs * plan.parts)
        if at < 0.05:
            return plan.rate * at / 0.05
        falling = 0.5 * (1 + math.cos(math.pi * (at - 0.05) / 0.95))
        return plan.rate * (0.05 + 0.95 * falling)

    def fitting(self, model):
        return _carrying_states(model)

    def begin_epoch(self, model, epoch):
        _reset(model)

    def scores(self, model, split):
        _reset(model)
        fed = self._fed(*self._streams(split))
        del fed["shuffle"]
        with _carrying_states(model):
            logs = model.evaluate(**fed, verbose=0, return_dict=True)
        _reset(model)
        return {"perplexity": math.exp(logs["crossentropy"])}

    def deployed(self, model):
        served = self.network(None, experiment.sizes_of(model), None, None)
        served.set_weights(
            [keras.ops.convert_to_numpy(w) for w in _without_states(model)]
        )
        return served

    def example(self):
        return {"tokens": self._streams("test")[0][0][:1]}

    def network(self, row, sizes, batch, steps):
        """The model of the given sizes."""
        raise NotImplementedError


class StackedLSTMs(LanguageTask):
    """Section 4.1 of the paper."""

    name = "stacked LSTMs"

    def sizes(self):
        return {f"lstm_{i}": n for i, n in enumerate(self.plan.units, start=1)}

    def network(self, row, sizes, batch, steps):
        return language_models.stacked_lstms(
            list(sizes.values()),
            self.plan.vocabulary,
            self.plan.units[0],
            self.plan.dropout,
            batch,
            steps,
            0.0 if row is None else row.l1,
        )


class HighwayNetwork(LanguageTask):
    """Section 4.2 of the paper."""

    name = "Recurrent Highway Network"

    def sizes(self):
        return {"rhn": self.plan.units[0]}

    def network(self, row, sizes, batch, steps):
        return language_models.highway_network(
            sizes["rhn"],
            self.plan.depth,
            self.plan.vocabulary,
            self.plan.dropout,
            batch,
            steps,
            0.0 if row is None else row.l1,
            self.plan.l2,
        )


def _recurrent(model):
    return [x for x in model.layers if isinstance(x, keras.layers.RNN)]


def _reset(model):
    for layer in _recurrent(model):
        if layer.stateful:
            layer.reset_states()


def _without_states(model):
    states = {
        id(state)
        for layer in _recurrent(model)
        if layer.stateful
        for state in keras.tree.flatten(layer.states)
    }
    return [w for w in model.weights if id(w) not in states]


@contextlib.contextmanager
def _carrying_states(model):
    """Lets stateful layers keep their states on JAX.

    Keras does not count them among the variables of a layer, so that its
    compiled steps on JAX start each batch from the same states.
    """
    added = []
    if keras.backend.backend() == "jax":
        for layer in _recurrent(model):
            for state in keras.tree.flatten(layer.states):
                layer._non_trainable_variables.append(state)
                added.append((layer._non_trainable_variables, state))
    try:
        yield
    finally:
        for variables, state in added:
            kept = [v for v in variables if v is not state]
            del variables[:]
            variables.extend(kept)


COLUMNS = [
    ("perplexity: valid, test", lambda r: _pair(r["valid"], r["test"])),
    ("units", lambda r: ", ".join(map(str, r["sizes"].values()))),
    ("weights", lambda r: short(r["weights"])),
    ("recurrent", lambda r: short(r["recurrent_weights"])),
    ("not 0", lambda r: short(r["nonzero_recurrent_weights"])),
    ("mult-adds", lambda r: short(r["mult_adds"])),
    ("float32, ms", lambda r: f"{r['float32_ms']:.2f}"),
    ("int8, ms", lambda r: f"{r['int8_ms']:.2f}"),
    ("paper: perplexity", lambda r: "{}, {}".format(*r["paper"]["perplexity"])),
    ("units", lambda r: str(r["paper"]["units"])),
    ("weights", lambda r: str(r["paper"]["weights"])),
]


def short(count):
    """A large number in a few digits."""
    return f"{count / 1e6:.2f}M" if count >= 1e5 else f"{count:,}"


def _pair(valid, test):
    return f"{valid['perplexity']:.2f}, {test['perplexity']:.2f}"
