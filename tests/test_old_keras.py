"""Which tests are skipped on an older Keras."""

import keras
import pytest

from tests.old_keras import FAULTS, NEWEST, PACKAGE, lacking, numbers


@pytest.mark.parametrize(
    ("version", "raised", "found"),
    [
        (
            "3.10.0",
            lambda: keras.layers.NoLayer,
            "keras.layers.NoLayer",
        ),
        ("3.10.0", lambda: keras.Sequential().no_such_attribute, None),
        ("3.10.0", lambda: layer_of(keras.layers, "NoLayer"), None),
        ("3.15.1", lambda: keras.layers.NoLayer, None),
    ],
    ids=["a layer", "not of a module", "in the package", "the newest"],
)
def test_what_an_older_keras_lacks_is_told(monkeypatch, version, raised, found):
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.raises(AttributeError) as error:
        raised()
    assert lacking(error.value) == found


# As if it stood in a file of the package.
FILE = str(PACKAGE / "file.py")
layer_of = eval(
    compile("lambda module, name: getattr(module, name)", FILE, "eval")
)


@pytest.mark.skipif(
    numbers(keras.__version__) < NEWEST, reason="older ones may have them"
)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.reason)
def test_the_newest_keras_has_no_such_fault(fault):
    fault.shown()
