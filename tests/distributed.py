"""Trains on one device and on several, and compares. Run as a script.

python -m tests.distributed mirrored|data_parallel HOW
python -m tests.distributed ddp|multi_worker|multi_process HOW RANK PORT [PORT]
"""

import json
import os
import sys

import numpy as np
import pytest

# Collecting the tests imports this, without arguments.
KIND, HOW = [*sys.argv[1:3], "", ""][:2] if __name__ == "__main__" else ("", "")

if KIND == "mirrored":
    import tensorflow as tf

    CPU = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        CPU, [tf.config.LogicalDeviceConfiguration()] * 2
    )
if KIND == "multi_worker":
    import tensorflow as tf

    RANK, *PORTS = map(int, sys.argv[3:])
    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": [f"127.0.0.1:{port}" for port in PORTS]},
            "task": {"type": "worker", "index": RANK},
        }
    )
    # Before anything else is computed, says TensorFlow.
    WORKERS = tf.distribute.MultiWorkerMirroredStrategy()

if KIND == "multi_process":
    import jax

    RANK, PORT = map(int, sys.argv[3:])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Each process has one device.
    jax.config.update("jax_num_cpu_devices", 1)

import keras
from keras import layers

import keras_iss

BATCH, EPOCHS = 8, 4


def compiled():
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 3))
    h = layers.LSTM(12, return_sequences=True, name="one")(x)
    h = layers.GRU(8, name="two")(h)
    model = keras.Model(x, layers.Dense(2)(h))
    for structure in keras_iss.find_structures(model):
        # Every third component is short.
        for part in structure.slices:
            value = keras.ops.convert_to_numpy(part.variable).copy()
            short = (slice(None),) * part.axis + (part.index[::3].ravel(),)
            value[short] *= 0.02
            part.variable.assign(value)
    optimizer = keras.optimizers.Adam(0.01)
    if HOW.startswith("proximal"):
        optimizer = keras_iss.ProximalISS(optimizer, strength=5.0)
    if HOW == "regularizer":
        keras_iss.ISSRegularizer(0.01).attach(model)
    model.compile(optimizer, "mse")
    return model


def callbacks():
    if HOW == "regularizer":
        return [keras_iss.ISSPruneCallback(1.2, keep_removed=True)]
    if HOW.endswith("budget"):
        return [keras_iss.ISSBudget({"one": 5, "two": 4})]
    return []


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 5, 3)).astype("float32")
    return x, rng.normal(size=(32, 2)).astype("float32")


def train(part=slice(None), processes=1):
    """The model after `fit`, as everywhere, and its outputs.

    In several processes, Keras' `predict` does not run on JAX.

    Args:
        part: Index of the samples that this process has.
        processes: Integer, those among which each batch is divided.
    """
    x, y = (array[part] for array in data())
    model = keras_iss.fit(
        compiled(),
        x,
        y,
        batch_size=BATCH // processes,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=callbacks(),
    )
    return model, None if processes > 1 else model.predict(x, verbose=0)


def compare(alone, several):
    """Fails unless two models are the same, and lost something.

    Args:
        alone: A model and its outputs.
        several: The same of the other one.
    """
    sizes = [
        [model.get_layer(name).units for name in ("one", "two")]
        for model, _ in (alone, several)
    ]
    assert sizes[0] == sizes[1] < [12, 8], sizes
    np.testing.assert_allclose(alone[1], several[1], atol=1e-4)
    assert np.abs(alone[1]).max() > 0.01


def mirrored():
    alone = train()
    outside = compiled()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        compare(alone, train())
        with pytest.raises(ValueError, match="made outside the scope"):
            keras_iss.fit(outside, *data(), callbacks=callbacks())


def data_parallel():
    alone = train()
    devices = keras.distribution.list_devices()
    assert len(devices) == 2
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    compare(alone, train())


def multi_process():
    """In two processes, each with its part of every batch."""
    keras.distribution.initialize(
        f"127.0.0.1:{PORT}", num_processes=2, process_id=RANK
    )
    alone = train()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(), auto_shard_dataset=False
        )
    )
    mine = np.arange(len(data()[0])).reshape(-1, 2, BATCH // 2)[:, RANK]
    several, _ = train(mine.ravel(), processes=2)
    compare(alone, copied_to_one_device(several))


def copied_to_one_device(model):
    """A model of no distribution with the same weights, and its outputs."""
    weights = model.get_weights()
    keras.distribution.set_distribution(None)
    copy = keras.models.clone_model(model)
    copy.set_weights(weights)
    return copy, keras.ops.convert_to_numpy(copy(data()[0]))


def multi_worker():
    """A training loop of one's own, in two processes.

    Keras' `fit` does not run with this strategy.
    """
    trained = []
    for strategy in (tf.distribute.get_strategy(), WORKERS):
        with strategy.scope():
            model = compiled()
        batches = strategy.experimental_distribute_dataset(
            tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
        )
        step = step_of(model, strategy)
        for _ in range(EPOCHS):
            for inputs, targets in batches:
                step(inputs, targets)
        trained.append(shrunk(model))
    compare(*trained)


def step_of(model, strategy):
    """A compiled training step on all replicas."""
    if HOW.startswith("proximal"):
        model.optimizer.attach(model)
    weights = model.trainable_variables

    def on_replica(inputs, targets):
        with tf.GradientTape() as tape:
            errors = tf.reduce_mean((model(inputs) - targets) ** 2, axis=-1)
            penalty = sum(model.losses) / strategy.num_replicas_in_sync
            loss = tf.reduce_sum(errors) / BATCH + penalty
        gradients = tape.gradient(loss, [w.value for w in weights])
        model.optimizer.apply(gradients, weights)

    return tf.function(lambda *batch: strategy.run(on_replica, args=batch))


def shrunk(model):
    """The small model and its outputs, of a training loop of one's own."""
    if HOW == "regularizer":
        keras_iss.prune(model, weights=0.4)
    small = keras_iss.shrink(model)
    return small, keras.ops.convert_to_numpy(small(data()[0]))


def ddp():
    """A training loop of one's own, in two processes."""
    import torch

    rank, port = map(int, sys.argv[3:5])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    x, y = (torch.tensor(a) for a in data())
    trained = []
    for replicas in (1, 2):
        model = compiled()
        optimizer = model.optimizer
        if HOW.startswith("proximal"):
            optimizer.attach(model)
        # Each process takes its part of every batch.
        size = BATCH // replicas
        mine = slice(rank * size, (rank + 1) * size)
        if replicas == 1:
            mine = slice(None)
        runs = model
        if replicas == 2:
            runs = torch.nn.parallel.DistributedDataParallel(model)
        for _ in range(EPOCHS):
            for start in range(0, len(x), BATCH):
                inputs = x[start : start + BATCH][mine]
                targets = y[start : start + BATCH][mine]
                model.zero_grad()
                loss = ((runs(inputs) - targets) ** 2).mean()
                loss = loss + sum(model.losses)
                loss.backward()
                variables = model.trainable_variables
                with torch.no_grad():
                    optimizer.apply(
                        [v.value.grad for v in variables], variables
                    )
        trained.append(shrunk(model))
    compare(*trained)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    {
        "mirrored": mirrored,
        "data_parallel": data_parallel,
        "ddp": ddp,
        "multi_worker": multi_worker,
        "multi_process": multi_process,
    }[KIND]()
