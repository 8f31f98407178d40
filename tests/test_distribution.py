"""On two devices: what one gives, on the same global batch."""

import os
import socket
import subprocess
import sys

import keras
import pytest

BACKEND = keras.backend.backend()
KIND = {"tensorflow": "mirrored", "jax": "data_parallel", "torch": "ddp"}[
    BACKEND
]


def start(how, *arguments):
    flags = "--xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [
            sys.executable,
            *("-W", "ignore", "-m", "tests.distributed"),
            KIND,
            how,
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        },
    )


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# With a regularizer, unless it says. Keras' `fit` knows one process on PyTorch.
HOW = {
    "tensorflow": ["budget", "proximal budget"],
    "jax": ["proximal budget"],
    "torch": ["regularizer", "proximal"],
}[BACKEND]


@pytest.mark.parametrize("how", HOW)
def test_two_devices_give_what_one_gives(how):
    if BACKEND == "torch":
        port = free_port()
        running = [start(how, rank, port) for rank in (0, 1)]
    else:
        running = [start(how)]
    for one in running:
        printed, _ = one.communicate(timeout=300)
        assert one.returncode == 0, printed
