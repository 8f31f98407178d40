"""What Arm's compiler Vela estimates of files for an NPU."""

import csv
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence


def times_by_vela(
    paths: Sequence[pathlib.Path], accelerator: str, arguments: Sequence[str]
) -> dict[str, float]:
    """What calls of files are to take on an Ethos-U.

    Args:
        paths: The `.tflite` files.
        accelerator: String, such as `"ethos-u55-128"`.
        arguments: Sequence of strings, further ones of the command `vela`.

    Returns:
        Dict from the name of a file to milliseconds.

    Raises:
        ImportError: if Vela is not installed.
        ValueError: if Vela does not take a file, or an argument.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise ImportError(
            'Vela is not installed: pip install "keras-iss[devices]".'
        )
    return {path.name: _time(path, accelerator, arguments) for path in paths}


def _time(path, accelerator, arguments):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "ethosu.vela", str(path)]
            + ["--accelerator-config", accelerator, "--output-dir", folder]
            + list(arguments),
            capture_output=True,
            text=True,
        )
        found = list(pathlib.Path(folder).glob("*_summary_*.csv"))
        if done.returncode or not found:
            said = (done.stderr or done.stdout).strip()[-500:]
            raise ValueError(f"Vela does not take `{path}`: {said}")
        (row,) = csv.DictReader(found[0].read_text("utf-8").splitlines())
    # In seconds.
    return float(row["inference_time"]) * 1e3
