"""A process that runs a file in TensorFlow Lite Micro, and nothing else.

Its interpreter ends the process on some errors, and writes to the process'
own standard error what it takes of memory.
"""

import pickle
import sys

_SMALLEST, _LARGEST = 1 << 14, 1 << 28


def main():
    """Reads a job from the standard input and writes what came of it."""
    import numpy as np
    from tflite_micro import runtime

    job = pickle.load(sys.stdin.buffer)
    interpreter, size = None, _SMALLEST
    while interpreter is None:
        try:
            interpreter = runtime.Interpreter.from_bytes(
                job["content"], arena_size=size
            )
        except RuntimeError:
            if size >= _LARGEST:
                raise
            size *= 2
    sequences = []
    for steps in job["sequences"]:
        interpreter.reset()
        now, given = dict(job["states"]), []
        for values in steps:
            for index, value in (now | values).items():
                interpreter.set_input(np.ascontiguousarray(value), index)
            interpreter.invoke()
            outputs = [
                np.array(interpreter.get_output(i))
                for i in range(job["outputs"])
            ]
            now = {into: outputs[of] for into, of in job["pairs"].items()}
            given.append(outputs)
        sequences.append(given)
    interpreter.print_allocations()
    sys.stdout.buffer.write(pickle.dumps(sequences))


if __name__ == "__main__":
    main()
