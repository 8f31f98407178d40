"""Pictures of a training: which units went, when, and what for."""

import keras
import numpy as np


def remember(structures, path):
    """Writes what the pictures show of a model before it loses units.

    Args:
        structures: `Structures` of the model.
        path: `pathlib.Path` of an `.npz` file: the group norms of each
            structure, and the weights of its layer, rows over rows.
    """
    arrays = {}
    for structure in structures:
        arrays[f"{structure.name}/norms"] = structure.norms()
        matrix = _weights(structure)
        if matrix is not None:
            arrays[f"{structure.name}/matrix"] = matrix.astype("float16")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def _weights(structure):
    """The input and recurrent weights of a layer, as one matrix."""
    found = {}
    for piece in structure.slices:
        path = piece.variable.path
        if structure.name in path and "kernel" in path:
            found[path] = keras.ops.convert_to_numpy(piece.variable)
    matrices = [m for m in found.values() if m.ndim == 2][:2]
    if len({m.shape[1] for m in matrices}) != 1:
        return None
    return np.concatenate(matrices)


def _figure(*arguments, **options):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot.subplots(*arguments, layout="constrained", **options)


def _save(figure, path):
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def units_over_epochs(result, path):
    """The units of each structure over the epochs."""
    figure, axes = _figure(figsize=(6, 4))
    history = result["history"]
    for name in history[0]["units"] if history else ():
        epochs = [entry["epoch"] for entry in history]
        units = [entry["units"][name] for entry in history]
        axes.plot(epochs, units, drawstyle="steps-post", label=name)
    axes.set(title=result["title"], xlabel="epochs", ylabel="units")
    axes.set_ylim(0)
    if axes.lines:
        axes.legend()
    _save(figure, path)


def group_norms(result, before, folder):
    """A histogram of the group norms of each structure."""
    with np.load(before) as saved:
        norms = {
            key.removesuffix("/norms"): saved[key]
            for key in saved.files
            if key.endswith("/norms")
        }
    figure, axes = _figure(
        1,
        len(norms),
        figsize=(4 * len(norms), 3.5),
        squeeze=False,
    )
    for (name, values), panel in zip(norms.items(), axes[0]):
        stay = np.isin(np.arange(len(values)), result["left"][name])
        panel.hist(
            [values[stay], values[~stay]],
            np.linspace(0, max(values.max(), 1e-9), 40),
            stacked=True,
            color=["tab:blue", "tab:red"],
            label=[f"stay ({stay.sum()})", f"go ({(~stay).sum()})"],
        )
        panel.set(title=name, xlabel="group norm", ylabel="units")
        panel.legend()
    _save(figure, folder / "group_norms.png")


def matrices(result, before, folder):
    """The weights of each recurrent layer; in red, what is cut out."""
    with np.load(before) as saved:
        shown = {
            key.removesuffix("/matrix"): saved[key].astype("float32")
            for key in saved.files
            if key.endswith("/matrix")
        }
    if not shown:
        return
    figure, axes = _figure(
        1, len(shown), figsize=(5 * len(shown), 5), squeeze=False
    )
    for (name, matrix), panel in zip(shown.items(), axes[0]):
        units = len(np.load(before)[f"{name}/norms"])
        gone = ~np.isin(np.arange(units), result["left"][name])
        scale = max(np.quantile(np.abs(matrix), 0.99), 1e-9)
        image = np.clip(1 - np.abs(matrix) / scale, 0, 1)
        image = np.repeat(image[..., None], 3, axis=2)
        cut = np.zeros(matrix.shape, bool)
        cut[:, np.tile(gone, matrix.shape[1] // units)] = True
        cut[-units:][gone] = True
        image[cut] *= (1.0, 0.55, 0.55)
        panel.imshow(image, aspect="auto", interpolation="nearest")
        panel.axhline(len(matrix) - units, color="tab:blue", linewidth=1)
        panel.set(
            title=f"{name}: in red what is cut out",
            xlabel="columns: gates",
            ylabel="rows: input, then hidden",
        )
    _save(figure, folder / "weights.png")


def trade_off(results, score, path):
    """What each row reaches with how many weights.

    Args:
        results: List of results.
        score: String, the score to show.
        path: `pathlib.Path` of the picture.
    """
    figure, axes = _figure(figsize=(6, 4.5))
    kinds = {
        "ISS": ("o-", [r for r in results if r["strength"]]),
        "L1": ("s-", [r for r in results if r["l1"]]),
        "trained at its size": (
            "x",
            [r for r in results if not r["strength"] and not r["l1"]],
        ),
    }
    for kind, (style, rows) in kinds.items():
        rows = sorted(rows, key=lambda r: r["recurrent_weights"])
        if rows:
            weights = [r["recurrent_weights"] / 1e6 for r in rows]
            axes.plot(
                weights, [r["test"][score] for r in rows], style, label=kind
            )
    for result in results:
        axes.annotate(
            result["row"],
            (result["recurrent_weights"] / 1e6, result["test"][score]),
            fontsize=8,
            xytext=(3, 3),
            textcoords="offset points",
        )
    axes.set(xlabel="recurrent weights, millions", ylabel=f"test {score}")
    axes.legend()
    _save(figure, path)
