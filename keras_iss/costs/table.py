"""What a model costs at any sizes, by what it costs at some."""

import dataclasses
import functools
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_iss._messages import quoted
from keras_iss.costs.benchmark_model import times_in
from keras_iss.costs.fitting import fitted
from keras_iss.costs.shapes import WeightShape
from keras_iss.costs.vela import times_by_vela

FORMAT = "keras-iss costs 1"


@dataclasses.dataclass(frozen=True)
class Probe:
    """A model at some sizes, exported and perhaps measured.

    Attributes:
        file: String, the name of its `.tflite` file.
        sizes: Dict from the name of a structure to its size.
        bytes: Integer, what the file takes.
        milliseconds: Float, what a call takes, or `None` where that is not
            measured.
    """

    file: str
    sizes: Mapping[str, int]
    bytes: int
    milliseconds: float | None = None


@dataclasses.dataclass(frozen=True)
class CostTable:
    """What a model costs on a device, at any sizes of its structures.

    It holds some models of smaller sizes, the probes, with the bytes of their
    files and, where it is measured, what a call takes. Between them, a call
    costs a constant, an amount for each multiply-add of a weight variable,
    and an amount for each component of a structure; a file, the same with the
    elements of the variables. All of these amounts are zero or more, and such
    that the relative errors on the probes are small.

    A table holds of what its probes were: one precision, batch size, number
    of time steps and device. `measure_costs` makes one for this machine.

    Attributes:
        model: String, the name of the model.
        sizes: Dict from the name of a structure to its size in full.
        weights: Tuple of `WeightShape`, the weights that get smaller.
        probes: Tuple of `Probe`.
        options: Dict of the options of `export_tflite` they were written with.
        round_to: Integer, what the sizes of probes are multiples of.
        device: String, what the milliseconds were measured on, or `""`.
    """

    model: str
    sizes: Mapping[str, int]
    weights: tuple[WeightShape, ...]
    probes: tuple[Probe, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    round_to: int = 1
    device: str = ""

    @property
    def has_times(self) -> bool:
        """Whether milliseconds were measured."""
        return len(self._timed) > 1

    def latency_ms(self, sizes: Mapping[str, int]) -> float:
        """What a call takes.

        Args:
            sizes: Dict from the name of each structure in `self.sizes` to its
                size.

        Returns:
            Float, milliseconds.

        Raises:
            ValueError: if no probe was measured, or a structure is missing.
        """
        self.check_timed()
        return float(self._terms(sizes, True) @ self._time_costs)

    def size_kb(self, sizes: Mapping[str, int]) -> float:
        """How large the file is, at most, as far as the probes say it.

        Args:
            sizes: As in `latency_ms`.

        Returns:
            Float, thousands of bytes.

        Raises:
            ValueError: if a structure is missing.
        """
        return float(self._terms(sizes, False) @ self._byte_costs) / 1e3

    @functools.cached_property
    def latency_error(self) -> float:
        """How far off a latency is, relative, where no probe tells it.

        The largest error on a probe by what is fitted to the others, but for
        the largest and the smallest probe.
        """
        self.check_timed()
        probes = sorted(self._timed, key=lambda x: x.milliseconds or 0.0)
        worst = 0.0
        for probe in probes[1:-1]:
            others = tuple(x for x in probes if x is not probe)
            without = dataclasses.replace(self, probes=others)
            told = without.latency_ms(probe.sizes)
            worst = max(worst, abs(told / (probe.milliseconds or 1.0) - 1.0))
        return worst

    def timed(
        self, milliseconds: Mapping[str, float], device: str
    ) -> "CostTable":
        """The same table with other times.

        Args:
            milliseconds: Dict from the file of a probe to what a call takes.
                Probes that it does not name have no time.
            device: String, what they were measured on.

        Raises:
            ValueError: if fewer than two probes are named, a file is that of
                no probe, or a time is not above zero.
        """
        known = {x.file for x in self.probes}
        strange = sorted(set(milliseconds) - known)
        if strange:
            raise ValueError(
                f"{quoted(strange)} is no file of this table. Its files are "
                f"{quoted(sorted(known))}."
            )
        if len(milliseconds) < 2:
            raise ValueError(
                f"The times of {len(milliseconds)} of {len(known)} files are "
                "known: at least two are needed, of different sizes, and more "
                "are better."
            )
        for file, value in milliseconds.items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(
                    f"`{file}` took {value} ms, and a time is above zero."
                )
        probes = tuple(
            dataclasses.replace(x, milliseconds=milliseconds.get(x.file))
            for x in self.probes
        )
        return dataclasses.replace(self, probes=probes, device=device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as a JSON file.

        Args:
            path: Where to, a `str` or `os.PathLike`. A file that is there is
                replaced in one step.
        """
        path = pathlib.Path(path)
        new = path.with_name(f".{path.name}.new")
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        try:
            # Options may be numbers of NumPy.
            text = json.dumps(content, indent=1, default=lambda x: x.item())
            new.write_text(text, "utf-8")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "CostTable":
        """Reads a table that `save` wrote.

        Args:
            path: The JSON file, a `str` or `os.PathLike`.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is no such file.
        """
        text = pathlib.Path(path).read_bytes()
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            content["weights"] = tuple(
                WeightShape.from_dict(x) for x in content["weights"]
            )
            content["probes"] = tuple(Probe(**x) for x in content["probes"])
            table = cls(**content)
            for probe in table.probes:
                table._terms(probe.sizes, False)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"`{path}` holds no table of costs ({error}). "
                "`CostTable.save` writes one."
            ) from error
        return table

    @classmethod
    def from_benchmark_model(
        cls,
        folder: str | os.PathLike[str],
        results: Any,
        device: str = "benchmark_model",
    ) -> "CostTable":
        r"""The times of another device, by TensorFlow's `benchmark_model`.

        `write_cost_probes` writes the files; on the device, it is run on each
        of them:

        ```bash
        adb push probes /data/local/tmp/
        for file in $(cd probes; ls *.tflite); do
          adb shell /data/local/tmp/benchmark_model --num_threads=1 \
            --graph=/data/local/tmp/probes/$file
        done > results.txt 2>&1
        ```

        Args:
            folder: The folder of `write_cost_probes`.
            results: What was printed: the path of a file, or a list of paths;
                each tells its graph, or is named for it (`probe_03.txt`). Or
                the path of a `.csv` or `.json` file of file names and
                microseconds. Or a dict from the name of a file to
                milliseconds.
            device: String, what to call the device.

        Returns:
            A `CostTable`.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if the times of fewer than two files are found.
        """
        table = cls.load(pathlib.Path(folder) / MANIFEST)
        return table.timed(times_in(results), device)

    @classmethod
    def from_vela(
        cls,
        folder: str | os.PathLike[str],
        accelerator: str = "ethos-u55-128",
        arguments: Sequence[str] = (),
    ) -> "CostTable":
        """The times of an Arm Ethos-U, as its compiler Vela estimates them.

        They are estimates, and of what is on the NPU alone: all of the file
        should be. `vela` prints what is not.

        Args:
            folder: The folder of `write_cost_probes(..., target="micro")`.
            accelerator: String, what `vela --accelerator-config` takes.
            arguments: Sequence of strings, further arguments of `vela`, such
                as `("--system-config", "...")`.

        Returns:
            A `CostTable`.

        Raises:
            ImportError: if Vela is not installed: extra `devices`.
            OSError: if there is no such folder.
            ValueError: if Vela does not take a file or an argument.
        """
        folder = pathlib.Path(folder)
        table = cls.load(folder / MANIFEST)
        paths = [folder / x.file for x in table.probes]
        spent = times_by_vela(paths, accelerator, arguments)
        return table.timed(spent, f"{accelerator}, estimated by Vela")

    def __str__(self) -> str:
        rows = Table(box=None, pad_edge=False)
        for title in (*self.sizes, "kB", "ms"):
            rows.add_column(title, justify="right", no_wrap=True)
        for probe in self.probes:
            spent = probe.milliseconds
            rows.add_row(
                *(str(probe.sizes[name]) for name in self.sizes),
                f"{probe.bytes / 1e3:.1f}",
                "" if spent is None else f"{spent:.3g}",
            )
        text = io.StringIO()
        Console(file=text, width=10_000, markup=False).print(rows)
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        if self.has_times:
            lines.append(
                f"on {self.device}; between the probes, at most "
                f"{self.latency_error:.0%} off"
            )
        return "\n".join(lines)

    @property
    def _timed(self):
        return [x for x in self.probes if x.milliseconds is not None]

    def check_timed(self) -> None:
        """Raises unless milliseconds were measured."""
        if not self.has_times:
            raise ValueError(
                f"The costs of `{self.model}` hold no milliseconds. Measure "
                "them here with `measure_costs`, or read those of another "
                "device with `CostTable.from_benchmark_model`."
            )

    def _terms(self, sizes, multiplied):
        """How much there is of what costs something, as an array."""
        missing = [name for name in self.sizes if name not in sizes]
        if missing:
            raise ValueError(
                f"The costs are of a model with a structure {quoted(missing)}, "
                f"whose size is not given. Received: {dict(sizes)}"
            )
        return np.array(
            [
                *(
                    weight.elements(sizes) * (weight.uses if multiplied else 1)
                    for weight in self._matrices(multiplied)
                ),
                *(sizes[name] for name in self.sizes),
                1,
            ],
            float,
        )

    def _matrices(self, multiplied):
        return [
            x
            for x in self.weights
            if len(x.axes) > 1 and (x.uses or not multiplied)
        ]

    def _fitted(self, probes, measured, multiplied):
        terms = np.array([self._terms(x.sizes, multiplied) for x in probes])
        count = len(self._matrices(multiplied))
        groups = np.repeat([0, 1, 2], [count, len(self.sizes), 1])
        if not count:
            groups = groups - 1
        measured = np.array(measured, float)
        return terms, measured, fitted(terms, groups, measured)

    @functools.cached_property
    def _time_costs(self):
        probes = self._timed
        spent = [x.milliseconds for x in probes]
        return self._fitted(probes, spent, True)[2]

    @functools.cached_property
    def _byte_costs(self):
        taken = [x.bytes for x in self.probes]
        terms, taken, costs = self._fitted(self.probes, taken, False)
        # No probe is larger than it tells.
        return costs * (taken / (terms @ costs)).max()


MANIFEST = "probes.json"
"""The table beside the files of probes."""
