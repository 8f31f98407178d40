"""The names that Keras gives, where a file or TensorFlow sets limits."""

import keyword
import re


def file_name(name):
    """The name of an input in a TFLite file.

    The name that Keras gives it, with `_` for what is neither a letter nor a
    digit, a dot or `_`. `self` and what begins with a digit have `input_`
    before them.
    """
    name = "".join(c if c.isalnum() or c in "_." else "_" for c in name)
    if not name or name[0].isdigit() or name == "self":
        return f"input_{name}"
    return name


def tensorflow_name(name):
    """The name of an input in a SavedModel, where TensorFlow sets limits.

    The name that Keras gives it, with `_` for all but ASCII letters, digits
    and `_`. `self`, the keywords of Python and what does not begin with a
    letter have `input_` before them; a name without a letter or digit left
    is `input`.
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if not name.strip("_"):
        return "input"
    if name == "self" or keyword.iskeyword(name) or not name[0].isalpha():
        return f"input_{name}"
    return name


def unique(names):
    """A list of the names, with a number behind those that are not new."""
    seen, unique = set(), []
    for name in names:
        new, count = name, 0
        while new in seen:
            count += 1
            new = f"{name}_{count}"
        seen.add(new)
        unique.append(new)
    return unique


def scope_name(name):
    """The name of a layer's operations, where TensorFlow sets limits."""
    name = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"layer{name}"
