"""A process that runs exported files, and has not what made them.

Run as a script, with the kind of files: `lite` loads TFLite files in LiteRT
alone, `saved_model` loads SavedModels in TensorFlow alone. It reads jobs from
its standard input and writes what they gave to its standard output.
"""

import pickle
import subprocess
import sys

ABSENT = {
    "lite": ("tensorflow", "keras", "keras_iss", "jax", "torch"),
    "saved_model": ("keras", "keras_iss", "tf_keras"),
}
# TensorFlow imports these where it finds them.
HIDDEN = {"lite": (), "saved_model": ("keras", "tf_keras")}


class Server:
    """The other end of such a process.

    A job is a path and a list of calls. A call is a tuple of the name of a
    signature and a dict of arrays; or `("reset_all_variables", {})`; or, for
    a signature whose states go out and in, `("step", [dict, ...])`.
    """

    def __init__(self, kind):
        self.process = subprocess.Popen(
            [sys.executable, __file__, kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, path, calls):
        """What each of the calls gave, in one interpreter after the other."""
        pickle.dump((str(path), calls), self.process.stdin)
        self.process.stdin.flush()
        present, results = pickle.load(self.process.stdout)
        assert not present, f"imported where it serves: {present}"
        if isinstance(results, Exception):
            raise results
        return results

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def lite(path, calls):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    # It resets the variables of all signatures, and so wants all allocated.
    interpreter.allocate_tensors()
    results = []
    for signature, inputs in calls:
        if signature == "reset_all_variables":
            interpreter.reset_all_variables()
            results.append(None)
            continue
        runner = interpreter.get_signature_runner(signature)
        details = runner.get_input_details()
        many = isinstance(inputs, list)
        states, given = {}, []
        for values in inputs if many else [inputs]:
            if many and not given:
                batch = len(next(iter(values.values())))
                states = {
                    name: np.zeros([batch, *x["shape"][1:]], x["dtype"])
                    for name, x in details.items()
                    if name not in values
                }
            known = {k: x for k, x in values.items() if k in details}
            got = {k: np.array(x) for k, x in runner(**known, **states).items()}
            states = {name: got[name] for name in states}
            given.append(got)
        results.append(given if many else given[0])
    return results


def saved_model(path, calls):
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    results = []
    for signature, inputs in calls:
        function = loaded.signatures[signature]
        got = function(**{k: tf.constant(x) for k, x in inputs.items()})
        results.append({k: np.asarray(x) for k, x in got.items()})
    return results


def main(kind):
    run = {"lite": lite, "saved_model": saved_model}[kind]
    sys.modules.update(dict.fromkeys(HIDDEN[kind]))
    while True:
        try:
            path, calls = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            results = run(path, calls)
        except Exception as error:
            results = RuntimeError(f"{type(error).__name__}: {error}")
        present = [name for name in ABSENT[kind] if sys.modules.get(name)]
        pickle.dump((present, results), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
