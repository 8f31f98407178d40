"""A file for microcontrollers as C++ sources."""

import os
import pathlib
import re

from keras_iss.export import files
from keras_iss.export.result import Export, Micro, Tensor

# Where the name of an operation, without its `_`, is not that of the function
# that adds it to a resolver.
_ADDED_AS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
# For what the interpreter on a device takes beyond that of this machine.
_HEADROOM = 1024
_UNKNOWN_ARENA = 65536
_PER_LINE = 12
# Where TensorFlow Lite Micro has the numbers of a tensor.
_FIELDS = {"int8": "int8", "int16": "i16", "int32": "i32", "int64": "i64"}


def write_c_sources(
    export: Export,
    folder: str | os.PathLike[str],
    name: str = "model",
) -> tuple[pathlib.Path, ...]:
    """Writes a file for microcontrollers as C++ sources, with an example.

    - `NAME.cc` has the file as an array of bytes.
    - `NAME.h` declares it, with the scale and the zero point of each input
      and output, the size of the arena, and a function `NAME_AddOperators`
      that gives a resolver the operators of the file and no others.
    - `NAME_example.cc` runs it: it sets the interpreter up, quantizes an
      input, carries the states of a file of single time steps, and gives the
      outputs as floats.

    Args:
        export: What `export_tflite(..., target="micro")` returned; its file
            is read.
        folder: Where to write the three files. It is made if it is not
            there; files of these names are replaced.
        name: What the files and what they define are called: a C identifier.

    Returns:
        Tuple of the paths of the three files.

    Raises:
        TypeError: if `export` is no `Export`.
        ValueError: if it is not one with `target="micro"`, or `name` is no
            identifier.
        OSError: if a file cannot be read or written.

    Example:
    ```python
    done = keras_iss.export_tflite(
        model, "model.tflite", target="micro", representative_data=x[:200]
    )
    keras_iss.export.write_c_sources(done, "firmware", "keywords")
    ```
    """
    if not isinstance(export, Export):
        raise TypeError(
            "`write_c_sources` takes the Export that `export_tflite` returns. "
            f"Received: {export!r} (of type {type(export).__name__})."
        )
    if export.micro is None:
        raise ValueError(
            f"{export.path} is not for microcontrollers: export the model with "
            'target="micro".'
        )
    if not isinstance(name, str) or not re.fullmatch(
        r"[A-Za-z]\w*", name, re.A
    ):
        raise ValueError(
            f"name={name!r} is no C identifier: letters, digits and `_`, a "
            "letter first."
        )
    content = export.path.read_bytes()
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        f"{name}.h": _header(export, export.micro, name),
        f"{name}.cc": _data(content, name),
        f"{name}_example.cc": _example(export.micro, name),
    }
    for file, text in sources.items():
        with files.written(folder / file, text.encode()):
            pass
    return tuple(folder / file for file in sources)


def adder(operation: str) -> str:
    """Name of the function that adds an operation to a resolver."""
    parts = [
        x if x[0].isdigit() else x.capitalize() for x in operation.split("_")
    ]
    return "Add" + _ADDED_AS.get(operation, "".join(parts))


def constant(name: str) -> str:
    """A name of a tensor as a C++ constant: `k` and capitalized words."""
    return "k" + "".join(
        x[0].upper() + x[1:] for x in re.findall(r"[A-Za-z0-9]+", name)
    )


def _header(export, micro: Micro, name):
    operators = sorted(export.operators)
    arena = (micro.arena or _UNKNOWN_ARENA - _HEADROOM) + _HEADROOM
    arena = -(-arena // 16) * 16
    measured = (
        f"{micro.arena} bytes were measured on a machine of 64 bits"
        if micro.arena
        else "Not measured: tflite-micro was not installed"
    )
    tensors = [*_constants("Input", micro.inputs)]
    tensors += _constants("Output", micro.outputs)
    added = "\n".join(
        f"  if (resolver.{adder(x)}() != kTfLiteOk) return kTfLiteError;"
        for x in operators
    )
    return f"""// Written by keras-iss: {export.size} bytes, {
        "one step a call" if micro.step else "a whole sequence a call"
    }.
#ifndef KERAS_ISS_{name.upper()}_H_
#define KERAS_ISS_{name.upper()}_H_

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

extern const unsigned char {name}_data[];
extern const unsigned int {name}_size;

namespace {name} {{

// {measured}.
constexpr std::size_t kArenaSize = {arena};
// Whether Reset() of the interpreter goes before each sequence.
constexpr bool kKeepsState = {str(micro.keeps_state).lower()};
constexpr int kOperators = {len(operators)};

struct Quantized {{
  int index;
  int count;
  float scale;
  int zero_point;
}};

// real = scale * (integer - zero_point); a scale of 0: meant as it is.
{chr(10).join(tensors)}

}}  // namespace {name}

inline TfLiteStatus {name}_AddOperators(
    tflite::MicroMutableOpResolver<{name}::kOperators>& resolver) {{
{added}
  return kTfLiteOk;
}}

#endif  // KERAS_ISS_{name.upper()}_H_
"""


def _constants(kind, tensors):
    for x in tensors:
        count = 1
        for size in x.shape:
            count *= size
        # Nine digits tell one float from the next.
        scale = f"{x.scale:.8e}f" if x.scale else "0.0f"
        yield (
            f"constexpr Quantized {constant(x.name)}{kind} = "
            f"{{{x.index}, {count}, {scale}, {x.zero_point}}};"
            f"  // {x.dtype}, {list(x.shape)}"
        )


def _data(content, name):
    lines = []
    for at in range(0, len(content), _PER_LINE):
        row = content[at : at + _PER_LINE]
        lines.append("    " + ", ".join(f"0x{x:02x}" for x in row) + ",")
    rows = "\n".join(lines)
    return f"""// Written by keras-iss.
#include "{name}.h"

// Where it lies, the interpreter reads the weights in place.
alignas(16) const unsigned char {name}_data[] = {{
{rows}
}};
const unsigned int {name}_size = {len(content)};
"""


def _example(micro: Micro, name):
    values = [x for x in micro.inputs if not x.state]
    states = [x for x in micro.inputs if x.state]
    of = {x.name: x for x in micro.outputs}
    zeroed = "\n".join(
        f"  Fill(interpreter, {name}::{constant(x.name)}Input);" for x in states
    )
    carried = "\n".join(
        f"  std::memcpy(interpreter.input({x.index})->data.raw,\n"
        f"              interpreter.output({of[x.name].index})->data.raw,\n"
        f"              interpreter.input({x.index})->bytes);"
        for x in states
    )
    read = "\n".join(_read(x, name) for x in values)
    shown = "\n".join(
        f"  Show(interpreter.output({x.index})->data.{_FIELDS[x.dtype]},\n"
        f"       {name}::{constant(x.name)}Output);"
        for x in micro.outputs
        if not x.state
    )
    reset = "  interpreter.Reset();" if micro.keeps_state else ""
    begin = "\n".join(x for x in (reset, zeroed) if x)
    what = "a step" if micro.step else "a sequence"
    return f"""// Written by keras-iss: how a program runs {name}.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "{name}.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {{

alignas(16) std::uint8_t arena[{name}::kArenaSize];

template <typename T>
T Quantize(float value, const {name}::Quantized& as) {{
  const float whole = std::round(value / as.scale) + as.zero_point;
  return static_cast<T>(std::fmin(
      std::fmax(whole, std::numeric_limits<T>::min()),
      std::numeric_limits<T>::max()));
}}

[[maybe_unused]] void Fill(tflite::MicroInterpreter& interpreter,
                           const {name}::Quantized& as) {{
  std::memset(interpreter.input(as.index)->data.raw, as.zero_point,
              interpreter.input(as.index)->bytes);
}}

template <typename T>
void Show(const T* values, const {name}::Quantized& as) {{
  for (int i = 0; i < as.count; ++i) {{
    MicroPrintf("%d: %f", i,
                static_cast<double>(
                    as.scale * static_cast<float>(values[i] - as.zero_point)));
  }}
}}

// Your data: the numbers of one call.
float Samples(int i) {{ return 0.01f * static_cast<float>(i % 100); }}

// Before each sequence.
void Begin([[maybe_unused]] tflite::MicroInterpreter& interpreter) {{
{begin}
}}

// {what.capitalize()}.
TfLiteStatus Run(tflite::MicroInterpreter& interpreter) {{
{read}
  if (interpreter.Invoke() != kTfLiteOk) return kTfLiteError;
{carried}
  return kTfLiteOk;
}}

}}  // namespace

int main() {{
  tflite::MicroMutableOpResolver<{name}::kOperators> resolver;
  if ({name}_AddOperators(resolver) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(tflite::GetModel({name}_data), resolver,
                                       arena, sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  Begin(interpreter);
  if (Run(interpreter) != kTfLiteOk) return 1;
{shown}
  return 0;
}}
"""


def _read(x: Tensor, name):
    as_it_is = f"static_cast<std::{x.dtype}_t>(Samples(i))"
    value = (
        f"Quantize<std::{x.dtype}_t>(\n"
        f"        Samples(i), {name}::{constant(x.name)}Input)"
        if x.scale
        else as_it_is
    )
    kind = _FIELDS[x.dtype]
    return (
        f"  {{\n  const int count = {name}::{constant(x.name)}Input.count;\n"
        "  for (int i = 0; i < count; ++i) {\n"
        f"    interpreter.input({x.index})->data.{kind}[i] = {value};\n"
        "  }\n  }"
    )
