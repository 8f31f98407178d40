"""A picture of a training that removes units: which, where, and when."""

import keras
import numpy as np

import keras_iss


class History:
    """What the picture shows of a training, for two callbacks to write down.

    Attributes:
        before: Callback for before the one that removes units.
        after: Callback for after it.
        norms: Dict from structure to its group norms after the last epoch
            with nothing removed.
        matrices: Dict from structure to its kernels then, input over hidden.
        left: Dict from structure to the indices of the units that stay.
        units: For each epoch, dict from structure to the units it had.
        mult_adds: For each epoch, the multiply-adds of a token.
    """

    def __init__(self):
        self.norms, self.matrices, self.left = {}, {}, {}
        self.units, self.mult_adds = [], []
        self.before = AfterEpoch(self._before)
        self.after = AfterEpoch(self._after)

    def _before(self, model):
        """Keeps what an epoch had, and how it was before the first cut."""
        structures = keras_iss.find_structures(model)
        self.units.append(
            {structure.name: structure.size for structure in structures}
        )
        self.mult_adds.append(structures.counts().mult_adds)
        if self.units[-1] != self.units[0] or any(
            structure.removed().any() for structure in structures
        ):
            return
        for structure in structures:
            name = structure.name
            cell = model.get_layer(name).cell
            self.left[name] = np.arange(structure.size)
            self.norms[name] = structure.norms()
            kernels = (cell.kernel, cell.recurrent_kernel)
            self.matrices[name] = np.concatenate(
                [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
            )

    def _after(self, model):
        """Remembers which of the units there were at first are left."""
        for structure in keras_iss.find_structures(model):
            left = self.left[structure.name]
            self.left[structure.name] = left[~structure.removed()]


class AfterEpoch(keras.callbacks.Callback):
    """Calls a function with the model of the moment after each epoch."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def on_epoch_end(self, epoch, logs=None):
        self.look(self.model)


def draw(history, result, title, path):
    """Draws what was short, where it lay, and when it went.

    Args:
        history: `History`.
        result: Dict with what was measured of `"dense"` and `"iss"`.
        title: String.
        path: `pathlib.Path` of the picture.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = list(history.norms)
    figure, axes = pyplot.subplots(
        2, 3, figsize=(15, 8), width_ratios=(1, 1.4, 1), layout="constrained"
    )
    figure.suptitle(title)
    for name, (norms, matrix, _) in zip(names, axes):
        values, left = history.norms[name], history.left[name]
        gone = ~np.isin(np.arange(len(values)), left)
        bins = np.linspace(0, values.max(), 40)
        norms.hist(
            [values[~gone], values[gone]],
            bins,
            stacked=True,
            color=["tab:blue", "tab:red"],
            label=[f"stay ({len(left)})", f"are cut out ({gone.sum()})"],
        )
        norms.set(
            title=f"{name}: group norms before the first cut",
            xlabel="group norm",
            ylabel="units",
        )
        norms.legend()
        show_matrix(matrix, history.matrices[name], gone, name)
    over_time, costs = axes[0][2], axes[1][2]
    for name in names:
        units = [sizes[name] for sizes in history.units]
        over_time.stairs(units, label=name, baseline=None, linewidth=2)
    over_time.set(
        title="units over the training", xlabel="epochs", ylabel="units"
    )
    over_time.set_ylim(0)
    over_time.legend()
    shown = {
        "test perplexity": "test",
        "recurrent weights": "recurrent_weights",
        "multiply-adds": "mult_adds",
        "file size": "file_megabytes",
        "latency, TFLite": "float32_ms",
    }
    ratios = [
        100 * result["iss"][key] / result["dense"][key]
        for key in shown.values()
    ]
    bars = costs.barh(list(shown), ratios, color="tab:blue")
    costs.bar_label(bars, fmt="%.0f %%", padding=2)
    costs.axvline(100, color="black", linewidth=1)
    costs.set(title="ISS in percent of dense", xlim=(0, 125))
    costs.invert_yaxis()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def show_matrix(axes, matrix, gone, name):
    """The weights of an LSTM; in red, what goes with the removed units."""
    units = len(gone)
    inputs = len(matrix) - units
    shade = np.abs(matrix) / np.quantile(np.abs(matrix), 0.99)
    image = np.repeat(1 - np.clip(shade, 0, 1)[..., None], 3, axis=2)
    cut = np.zeros(matrix.shape, bool)
    cut[:, np.tile(gone, 4)] = True
    cut[inputs:][gone] = True
    image[cut] *= (1.0, 0.55, 0.55)
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.axhline(inputs, color="tab:blue", linewidth=1)
    axes.set(
        title=f"{name}: weights, in red what is cut out",
        xlabel="columns: gates i, f, c, o",
        ylabel="rows: input, then hidden",
    )
