"""On two devices: what one gives, on the same global batch."""

import contextlib
import os
import socket
import subprocess
import sys

import keras
import pytest

BACKEND = keras.backend.backend()


def start(kind, how, *arguments):
    flags = "--xla_force_host_platform_device_count=2"
    return subprocess.Popen(
        [
            sys.executable,
            *("-W", "ignore", "-m", "tests.distributed"),
            kind,
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


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for socket_ in sockets:
            socket_.bind(("127.0.0.1", 0))
        return [socket_.getsockname()[1] for socket_ in sockets]


# Kinds of devices, and ways to learn: with a regularizer, unless it says.
# Keras' `fit` knows one process on PyTorch, and one worker on TensorFlow.
CASES = {
    "tensorflow": [
        ("mirrored", "budget"),
        ("mirrored", "proximal budget"),
        ("multi_worker", "regularizer"),
        ("multi_worker", "proximal"),
    ],
    "jax": [
        ("data_parallel", "proximal budget"),
        ("multi_process", "proximal budget"),
        ("multi_process", "regularizer"),
    ],
    "torch": [("ddp", "regularizer"), ("ddp", "proximal")],
}[BACKEND]


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_two_devices_give_what_one_gives(kind, how):
    """And a model that was made for one is refused, where Keras would fail."""
    # One process, or two that meet at one port, or have one each.
    ports = free_ports(
        {"ddp": 1, "multi_process": 1, "multi_worker": 2}.get(kind, 0)
    )
    if ports:
        running = [start(kind, how, rank, *ports) for rank in (0, 1)]
    else:
        running = [start(kind, how)]
    for process in running:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
