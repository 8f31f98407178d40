"""Runs the rows of a table: train, prune, shrink, compare, export.

A row is one training. It goes in parts, and after each one everything that
decides how it goes on is written down: a run that was killed, or that ran out
of its minutes, ends as if nothing had happened when it is resumed.
"""

import abc
import contextlib
import dataclasses
import json
import os
import time

import keras
import numpy as np

import keras_iss
from paper import pictures


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        title: String, what the table calls it.
        sizes: Optional dict from structure to its size at the start. Defaults
            to those of the task.
        sizes_of: Optional string, the row whose last sizes it starts with.
        weights_of: Optional string, the row whose last model it starts from.
        strength: Float, of the group Lasso.
        l1: Float, of a penalty on single weights.
        cuts: Pairs: after which share of the training units are cut out, and
            which share of them all is left. The penalty ends with the last.
        paper: Dict of what the paper has in this row.
        changes: Dict from attribute of the task's plan to its value here.
    """

    title: str
    sizes: dict | None = None
    sizes_of: str | None = None
    weights_of: str | None = None
    strength: float = 0.0
    l1: float = 0.0
    cuts: tuple = ()
    paper: dict = dataclasses.field(default_factory=dict)
    changes: dict = dataclasses.field(default_factory=dict)


class Task(abc.ABC):
    """A model, its data and its recipe.

    Attributes:
        name: String.
        plan: Dataclass with what the recipe needs, of it here: `epochs`,
            `parts` in an epoch, `threshold` of single weights, and
            `short`: group norms below which components are pruned at last.
        rows: Dict from name to `Row`.
        seed: Integer.
    """

    @abc.abstractmethod
    def sizes(self):
        """Dict from structure to its size, of the dense model."""

    @abc.abstractmethod
    def build(self, row, sizes):
        """The model to train, compiled, without the group Lasso."""

    @abc.abstractmethod
    def batches(self, part):
        """What `fit` trains on in this part of the training."""

    @abc.abstractmethod
    def learning_rate(self, row, part):
        """The learning rate in this part."""

    @abc.abstractmethod
    def scores(self, model, split):
        """Dict of what the model reaches on `"valid"` or `"test"`."""

    @abc.abstractmethod
    def deployed(self, model):
        """The model as it serves: for any batch size, without a state."""

    @abc.abstractmethod
    def example(self):
        """Dict of inputs for one call, to measure the latency."""

    def begin_epoch(self, model, epoch):
        """Called before the first part of an epoch."""

    def fitting(self, model):
        """A context in which the model is fitted."""
        return contextlib.nullcontext()

    def callbacks(self):
        """More callbacks of `fit`, after those of the experiment."""
        return []

    def finish(self, model):
        """Called after the last part, before anything is pruned."""

    def weights(self, model):
        """How many weights the table counts."""
        return model.count_params()

    def of_row(self, row):
        """The task as this row wants it."""
        if not row.changes:
            return self
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__)
        changed.plan = dataclasses.replace(self.plan, **row.changes)
        return changed


class OutOfTime(Exception):
    """The minutes are over; what was done is written down."""


class Clock:
    """Says when the minutes that were given are over.

    Args:
        minutes: Optional float.
    """

    def __init__(self, minutes=None):
        self.start = time.monotonic()
        self.minutes = minutes
        self.longest = 0.0

    def check(self):
        """Raises `OutOfTime` if another part would end too late."""
        if self.minutes is None:
            return
        if time.monotonic() - self.start + self.longest > 60 * self.minutes:
            raise OutOfTime

    def took(self, seconds):
        """Notes how long a part takes."""
        self.longest = max(self.longest, seconds)


class Checkpoint:
    """The state of a training, in one file.

    Args:
        path: `pathlib.Path` of the file.
        settings: Dict of what must be the same when the training goes on.
    """

    def __init__(self, path, settings):
        self.path = path
        self.settings = json.loads(json.dumps(settings))

    def save(self, model, part, notes):
        """Writes the state; a crash leaves the one before.

        Args:
            model: The model, with its optimizer.
            part: Integer, the parts that are done.
            notes: Dict that JSON can hold.
        """
        head = {
            "settings": self.settings,
            "sizes": sizes_of(model),
            "part": part,
            "notes": notes,
        }
        arrays = {
            str(i): keras.ops.convert_to_numpy(variable)
            for i, variable in enumerate(_state(model))
        }
        write_atomically(
            self.path,
            lambda file: np.savez(file, head=json.dumps(head), **arrays),
        )

    def head(self):
        """What was written beside the variables, or `None`."""
        if not self.path.exists():
            return None
        with np.load(self.path) as saved:
            head = json.loads(str(saved["head"]))
        found = head["settings"]
        other = [
            key
            for key in {**found, **self.settings}
            if found.get(key) != self.settings.get(key)
        ]
        if other:
            changes = "; ".join(
                f"{key}: {found.get(key)} then, {self.settings.get(key)} now"
                for key in sorted(other)
            )
            raise SystemExit(
                f"`{self.path}` is of a training with other settings "
                f"({changes}). Go on with the same ones, or give another "
                "`--out`."
            )
        return head

    def restore(self, model):
        """Gives a model, built with the sizes of the head, the state."""
        with np.load(self.path) as saved:
            for i, variable in enumerate(_state(model)):
                variable.assign(saved[str(i)])


def _state(model):
    """All variables that decide how a training goes on."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    states = [
        state
        for layer in model.layers
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(layer.states)
    ]
    return [*model.variables, *model.optimizer.variables, *states]


def write_atomically(path, write):
    """Calls `write` with a file that then takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path, value):
    """Writes JSON, whole or not at all."""
    text = json.dumps(value, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def sizes_of(model):
    """Dict from structure to its size."""
    return {
        structure.name: structure.size
        for structure in keras_iss.find_structures(model)
    }


def strongest(structures, count):
    """The indices of the units with the longest groups, by structure.

    Lengths are compared with the mean of their own layer.
    """
    relative = {
        structure.name: structure.norms() / structure.norms().mean()
        for structure in structures.free
    }
    limit = np.sort(np.concatenate(list(relative.values())))[-count]
    return {
        name: np.flatnonzero(values >= limit)
        for name, values in relative.items()
    }


class Training:
    """One row on its way.

    Args:
        task: `Task`.
        name: String, of the row.
        folder: `pathlib.Path` for everything the row writes.
        console: `rich.console.Console`.
        clock: `Clock`.
        others: Dict from name to the results of the rows before.
    """

    def __init__(self, task, name, folder, console, clock, others):
        self.row = task.rows[name]
        self.task = task.of_row(self.row)
        self.name = name
        self.folder = folder / name
        self.console = console
        self.clock = clock
        self.others = others
        self.checkpoint = Checkpoint(
            self.folder / "checkpoint.npz",
            {
                "task": task.name,
                "row": dataclasses.asdict(self.row),
                "plan": dataclasses.asdict(self.task.plan),
                "seed": task.seed,
                "backend": keras.backend.backend(),
            },
        )

    @property
    def parts(self):
        """How many parts the training has."""
        return self.task.plan.epochs * self.task.plan.parts

    def run(self, resume):
        """Trains, or goes on with it, and writes the result.

        Args:
            resume: Boolean, whether to go on with what is there.

        Returns:
            The result, a dict.
        """
        finished = self.folder / "result.json"
        head = self.checkpoint.head()
        if not resume and (finished.exists() or head is not None):
            raise SystemExit(
                f"`{self.folder}` holds this row already. Go on with "
                "`--resume`, or give another `--out`."
            )
        if finished.exists():
            return json.loads(finished.read_text())
        keras.utils.clear_session()
        keras.utils.set_random_seed(self.task.seed)
        sizes = self._first_sizes() if head is None else head["sizes"]
        model = self.task.build(self.row, sizes)
        penalty = keras_iss.ISSRegularizer(self.row.strength)
        if self.row.strength:
            penalty.attach(model)
        notes = {"history": [], "left": {}}
        done = 0
        if head is None:
            self._first_weights(model)
            self.checkpoint.save(model, 0, notes)
        else:
            self.checkpoint.restore(model)
            done, notes = head["part"], head["notes"]
        for part in range(done, self.parts):
            self.clock.check()
            start = time.monotonic()
            model = self._part(model, part, penalty, notes)
            self.checkpoint.save(model, part + 1, notes)
            self.clock.took(time.monotonic() - start)
        self.clock.check()
        result = self._finish(model, notes)
        write_json(finished, result)
        return result

    def _first_sizes(self):
        row = self.row
        if row.sizes_of is not None:
            return self._of(row.sizes_of)["sizes"]
        return row.sizes or self.task.sizes()

    def _first_weights(self, model):
        if self.row.weights_of is not None:
            self._of(self.row.weights_of)
            path = self.folder.parent / self.row.weights_of / "trained.npz"
            with np.load(path) as saved:
                model.set_weights([saved[key] for key in saved.files])

    def _of(self, name):
        if name not in self.others:
            raise SystemExit(
                f"The row `{self.name}` starts from what the row `{name}` "
                f"ends with: run `--row {name}` first, with the same `--out`."
            )
        return self.others[name]

    def _part(self, model, part, penalty, notes):
        """Trains for a part; returns the model, which may be smaller."""
        plan, row = self.task.plan, self.row
        epoch, within = divmod(part, plan.parts)
        if within == 0:
            self.task.begin_epoch(model, epoch)
        cut_after = [round(share * self.parts) for share, _ in row.cuts]
        if row.strength:
            over = bool(cut_after) and part >= cut_after[-1]
            penalty.strength = 0.0 if over else row.strength
        rate = self.task.learning_rate(row, part)
        model.optimizer.learning_rate = rate
        callbacks = [_Bar(self.console, f"{self.name}, epoch {epoch + 1}")]
        if row.strength or row.l1 or row.weights_of:
            callbacks.append(
                keras_iss.ISSPruneCallback(plan.threshold, elementwise=True)
            )
        callbacks += [keras_iss.ISSLogger(), *self.task.callbacks()]
        if keras.backend.backend() == "torch":
            callbacks.append(_Seed(hash((self.task.seed, part))))
        start = time.monotonic()
        with self.task.fitting(model):
            logs = model.fit(
                **self.task.batches(part), verbose=0, callbacks=callbacks
            ).history
        entry = {key: float(values[-1]) for key, values in logs.items()}
        if not np.isfinite(entry["loss"]):
            raise SystemExit(
                f"`{self.name}`: the loss is {entry['loss']} in epoch "
                f"{epoch + 1}. The checkpoint is that of the part before; a "
                "smaller learning rate may help."
            )
        entry.update(part=part + 1, epoch=(part + 1) / plan.parts, rate=rate)
        entry["units"] = {
            structure.name: structure.alive
            for structure in keras_iss.find_structures(model)
        }
        entry["seconds"] = time.monotonic() - start
        if within == plan.parts - 1:
            scores = self.task.scores(model, "valid")
            entry.update({f"valid_{k}": v for k, v in scores.items()})
            shown = ", ".join(f"{k} {v:.4g}" for k, v in scores.items())
            self.console.print(
                f"{self.name}, epoch {epoch + 1}: validation {shown}; "
                f"units {list(entry['units'].values())}"
            )
        notes["history"].append(entry)
        for after, (_, share) in zip(cut_after, row.cuts):
            if part + 1 == after:
                model = self._cut(model, share, notes)
        return model

    def _cut(self, model, share, notes):
        structures = keras_iss.find_structures(model)
        if not notes["left"]:
            pictures.remember(structures, self.folder / "before.npz")
            notes["left"] = {s.name: list(range(s.size)) for s in structures}
            notes["first"] = sum(s.size for s in structures.free)
        keep = strongest(structures, round(share * notes["first"]))
        model = keras_iss.shrink(model, keep=keep)
        for name, kept in keep.items():
            left = notes["left"][name]
            notes["left"][name] = [left[int(i)] for i in kept]
        return model

    def _finish(self, model, notes):
        """Prunes, shrinks, compares and exports."""
        task, folder = self.task, self.folder
        task.finish(model)
        write_atomically(
            folder / "trained.npz",
            lambda file: np.savez(file, *model.get_weights()),
        )
        trained = task.scores(model, "test")
        structures = keras_iss.find_structures(model)
        nonzero = _nonzero(structures)
        if not notes["left"]:
            pictures.remember(structures, folder / "before.npz")
        keras_iss.prune(model, threshold=task.plan.short)
        structures = keras_iss.find_structures(model)
        left = {
            structure.name: np.arange(structure.size)[
                ~structure.removed()
            ].tolist()
            for structure in structures
        }
        for name, before in notes["left"].items():
            left[name] = [before[i] for i in left[name]]
        pruned = task.scores(model, "test")
        small = keras_iss.shrink(model)
        shrunk = task.scores(small, "test")
        valid = task.scores(small, "valid")
        served = task.deployed(small)
        served.save(folder / "model.keras")
        counts = keras_iss.find_structures(served).counts()
        result = {
            "row": self.name,
            "title": self.row.title,
            "sizes": sizes_of(small),
            "valid": valid,
            "test": shrunk,
            "test_before_pruning": trained,
            "test_before_shrinking": pruned,
            "weights": task.weights(served),
            "recurrent_weights": counts.recurrent_weights,
            "nonzero_recurrent_weights": nonzero,
            "mult_adds": counts.mult_adds,
            "megabytes": (folder / "model.keras").stat().st_size / 1e6,
            "training_seconds": sum(e["seconds"] for e in notes["history"]),
            "strength": self.row.strength,
            "l1": self.row.l1,
            "seed": task.seed,
            "plan": dataclasses.asdict(task.plan),
            "paper": self.row.paper,
            "left": left,
            "history": notes["history"],
        }
        result.update(self._export(served))
        pictures.units_over_epochs(result, folder / "units.png")
        pictures.group_norms(result, folder / "before.npz", folder)
        pictures.matrices(result, folder / "before.npz", folder)
        return result

    def _export(self, served):
        sizes = {}
        for kind, quantize in (("float32", None), ("int8", "int8")):
            path = self.folder / f"model_{kind}.tflite"
            try:
                keras_iss.export_tflite(served, path, quantize=quantize)
            except ImportError as error:
                self.console.print(f"Not exported: {error}", markup=False)
                return {}
            sizes[f"{kind}_megabytes"] = path.stat().st_size / 1e6
        return sizes


def _nonzero(structures):
    """The weights of recurrent layers that are not zero."""
    seen = {}
    for structure in structures:
        for piece in structure.slices:
            if structure.name in piece.variable.path:
                seen[piece.variable.path] = piece.variable
    return int(
        sum(
            np.count_nonzero(keras.ops.convert_to_numpy(variable))
            for variable in seen.values()
        )
    )


def latencies(folder, names, example, turns=15):
    """Milliseconds of the exported models, which take turns.

    Args:
        folder: `pathlib.Path` of the run.
        names: The rows.
        example: Dict from input to an array.
        turns: Integer.

    Returns:
        Dict from row to kind of file to milliseconds.
    """
    paths = {
        (name, kind): folder / name / f"model_{kind}.tflite"
        for name in names
        for kind in ("float32", "int8")
    }
    paths = {key: path for key, path in paths.items() if path.exists()}
    result = {name: {} for name in names}
    if not paths:
        return result
    from ai_edge_litert.interpreter import Interpreter

    runs = {}
    for key, path in paths.items():
        interpreter = Interpreter(str(path), num_threads=2)
        runner = interpreter.get_signature_runner("serve")
        wanted = runner.get_input_details()
        inputs = {
            name: value.astype(wanted[name]["dtype"])
            for name, value in example.items()
        }
        runs[key] = (runner, inputs)
    times = {key: [] for key in runs}
    for _ in range(turns):
        for key, (runner, inputs) in runs.items():
            runner(**inputs)
            start = time.perf_counter()
            runner(**inputs)
            times[key].append(1000 * (time.perf_counter() - start))
    for (name, kind), spent in times.items():
        result[name][f"{kind}_ms"] = float(np.median(spent))
    return result


class _Seed(keras.callbacks.Callback):
    """Seeds PyTorch, from which Keras' dropout draws there.

    Not before `fit`, which draws too where a model is new.
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def on_train_begin(self, logs=None):
        import torch

        torch.manual_seed(self.seed)


class _Bar(keras.callbacks.Callback):
    """A progress bar over the batches of a part."""

    def __init__(self, console, title):
        super().__init__()
        self.console = console
        self.title = title

    def on_train_begin(self, logs=None):
        from rich import progress

        self.progress = progress.Progress(
            progress.TextColumn("{task.description:<28}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.progress.start()
        self.bar = self.progress.add_task(
            self.title, total=self.params.get("steps")
        )

    def on_train_batch_end(self, batch, logs=None):
        self.progress.advance(self.bar)

    def on_train_end(self, logs=None):
        self.progress.stop()
