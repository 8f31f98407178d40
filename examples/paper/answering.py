"""Question answering as a task: spans, exact match and F1."""

import dataclasses
import functools
import pathlib

import keras
import numpy as np

from paper import bidaf, experiment, questions, recurring_spans

STRUCTURES = tuple(
    f"{layer}_{direction}"
    for layer in ("phrase", "modelling_1", "modelling_2", "output")
    for direction in ("forward", "backward")
)
TESTED_ARTICLES = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """The recipe of a question answering model.

    Attributes:
        units: Integer, of each LSTM.
        filters: Integer, of the convolution over characters.
        word_size: Integer, of the word vectors.
        batch: Integer.
        epochs: Integer.
        parts: Integer, parts of an epoch; after each, a checkpoint.
        rate: Float, Adam's learning rate.
        clip: Optional float, the norm that the gradient is clipped to.
        dropout: Float, before each LSTM.
        averaging: Float, of the moving average of the weights.
        longest: Integer, tokens of a passage.
        longest_question: Integer.
        at_least: Integer, how often a word must occur to be known.
        threshold: Float, single weights below it are zeroed.
        short: Float, components of a shorter group norm are cut out.
        scored: Optional integer, how many questions are scored after each
            epoch.
    """

    units: int = 100
    filters: int = 100
    word_size: int = 100
    batch: int = 60
    epochs: int = 12
    parts: int = 10
    rate: float = 0.001
    clip: float | None = None
    dropout: float = 0.2
    averaging: float = 0.999
    longest: int = 400
    longest_question: int = 50
    at_least: int = 10
    threshold: float = 1e-4
    short: float = 0.02
    scored: int | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """Questions to learn from, to look at on the way, and to test on."""

    train: list
    valid: list
    test: list
    source: str


def load(path):
    """The questions of a file, of a folder of texts, or SQuAD itself.

    Args:
        path: Optional path: a JSON file in SQuAD's format, or a folder of
            plain-text files, from which questions are made.
    """
    if path is None:
        train, test = questions.squad()
        return Data(train, test, test, "SQuAD v1.1")
    path = pathlib.Path(path)
    if path.is_dir():
        made = questions.questions_of(recurring_spans.make(path), str(path))
        titles = sorted({question.title for question in made})
        part = {
            title: {0: "valid", 5: "test"}.get(i % 10, "train")
            for i, title in enumerate(titles)
        }
        split = {
            name: [
                question for question in made if part[question.title] == name
            ]
            for name in ("train", "valid", "test")
        }
        if not all(split.values()):
            raise SystemExit(
                f"`--data {path}` is too little text for questions: ten files "
                "or more, of some thousand words, are needed."
            )
        return Data(**split, source=f"recurring spans of {path.name}")
    if not path.exists():
        raise SystemExit(
            f"`--data {path}` does not exist. It takes a JSON file in SQuAD's "
            "format, or a folder with plain-text files."
        )
    found = questions.read_squad_json(path)
    train, test = questions.by_article(found, TESTED_ARTICLES)
    return Data(train, test, test, path.name)


class Answering(experiment.Task):
    """Section 4.3 of the paper.

    Args:
        plan: `Plan`.
        rows: Dict from name to `experiment.Row`.
        data: `Data`.
        vectors: Optional path of word vectors.
        seed: Integer.
    """

    name = "BiDAF"

    def __init__(self, plan, rows, data, vectors=None, seed=0):
        self.plan = plan
        self.rows = rows
        self.data = data
        self.source = data.source
        self.seed = seed
        self.vocabulary = questions.Vocabulary.of(
            data.train, vectors, plan.at_least, plan.word_size
        )

    def sizes(self):
        return dict.fromkeys(STRUCTURES, self.plan.units)

    def build(self, row, sizes):
        plan, vocabulary = self.plan, self.vocabulary
        model = bidaf.bidaf(
            sizes,
            len(vocabulary.words) + 2 - vocabulary.words_without_vector,
            vocabulary.words_without_vector,
            len(vocabulary.characters) + 2,
            vocabulary.vectors,
            plan.dropout,
            plan.filters,
            plan.word_size,
            vocabulary.word_length,
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            keras.optimizers.Adam(
                plan.rate,
                global_clipnorm=plan.clip,
                use_ema=True,
                ema_momentum=plan.averaging,
            ),
            {"start": loss, "end": loss},
        )
        return model

    @functools.cached_property
    def _numbered(self):
        plan = self.plan
        return {
            split: questions.numbered(
                getattr(self.data, split),
                self.vocabulary,
                plan.longest if split == "train" else 10_000,
                plan.longest_question,
            )
            for split in ("train", "valid", "test")
        }

    def batches(self, part):
        plan = self.plan
        epoch, within = divmod(part, plan.parts)
        answered = [n for n in self._numbered["train"] if n.span is not None]
        batches = questions.batched(
            answered, plan.batch, seed=1000 * self.seed + epoch
        )
        if len(batches) < plan.parts:
            raise SystemExit(
                f"{len(answered)} questions are too few for {plan.parts} "
                f"parts of an epoch, in batches of {plan.batch}."
            )
        chosen = np.array_split(np.arange(len(batches)), plan.parts)[within]
        made = _Batches(
            [batches[i] for i in chosen], self.vocabulary.word_length
        )
        if keras.backend.backend() == "tensorflow":
            made = made.with_any_length()
        return {"x": made, "shuffle": False}

    def learning_rate(self, row, part):
        return self.plan.rate

    def callbacks(self):
        return [_KeepLast()]

    def finish(self, model):
        # The moving average, which serves.
        model.optimizer.finalize_variable_values(model.trainable_variables)

    def weights(self, model):
        """All but the word vectors, as the paper counts."""
        table = model.get_layer("word_vectors")
        return model.count_params() - table.count_params()

    def scores(self, model, split):
        items = self._numbered[split]
        exact, overlap = [], []
        for batch in questions.batched(items, self.plan.batch):
            inputs, _ = questions.arrays(batch, self.vocabulary.word_length)
            logits = model.predict_on_batch(inputs)
            for i, numbered in enumerate(batch):
                size = len(numbered.tokens)
                span = questions.best_span(
                    logits["start"][i, :size], logits["end"][i, :size]
                )
                context = numbered.question.context
                answer = questions.text_of(context, numbered.tokens, *span)
                right = numbered.question.answers
                exact.append(questions.exact_match(answer, right))
                overlap.append(questions.f1(answer, right))
        return {"EM": 100 * np.mean(exact), "F1": 100 * np.mean(overlap)}

    def deployed(self, model):
        return model

    def example(self):
        longest = max(self._numbered["test"][:50], key=lambda n: len(n.tokens))
        inputs, _ = questions.arrays([longest], self.vocabulary.word_length)
        return inputs


class _Batches(keras.utils.PyDataset):
    """The batches of a part, in their order."""

    def __init__(self, batches, word_length):
        super().__init__()
        self.batches = batches
        self.word_length = word_length

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return questions.arrays(self.batches[index], self.word_length)

    def with_any_length(self):
        """The same for TensorFlow.

        Keras would take the lengths of the first batches for those of all.
        """
        import tensorflow as tf

        def spec(array):
            shape = [None, None, *array.shape[2:]][: array.ndim]
            return tf.TensorSpec(shape, array.dtype)

        return tf.data.Dataset.from_generator(
            lambda: (self[i] for i in range(len(self))),
            output_signature=keras.tree.map_structure(spec, self[0]),
        ).apply(tf.data.experimental.assert_cardinality(len(self)))


class _KeepLast(keras.callbacks.Callback):
    """Keeps the weights of the last step.

    At the end of each `fit` Keras puts their moving average into the model;
    a training that goes on needs what was there.
    """

    def on_epoch_end(self, epoch, logs=None):
        self.kept = [
            keras.ops.convert_to_numpy(v)
            for v in self.model.trainable_variables
        ]

    def on_train_end(self, logs=None):
        for variable, value in zip(self.model.trainable_variables, self.kept):
            variable.assign(value)


COLUMNS = [
    ("EM, F1", lambda r: f"{r['test']['EM']:.2f}, {r['test']['F1']:.2f}"),
    ("units", lambda r: " ".join(str(r["sizes"][n]) for n in STRUCTURES)),
    ("weights", lambda r: f"{r['weights'] / 1e6:.3f}M"),
    ("mult-adds", lambda r: f"{r['mult_adds'] / 1e6:.2f}M"),
    ("float32, ms", lambda r: f"{r['float32_ms']:.1f}"),
    ("int8, ms", lambda r: f"{r['int8_ms']:.1f}"),
    ("paper: EM, F1", lambda r: "{}, {}".format(*r["paper"]["scores"])),
    ("units", lambda r: " ".join(map(str, r["paper"]["units"]))),
    ("weights", lambda r: r["paper"]["weights"]),
]
