"""Modules that PyTorch trained compute the same in Keras."""

import keras
import numpy as np
import pytest

import keras_iss

torch = pytest.importorskip("torch")

MODULES = {
    "lstm": lambda: torch.nn.LSTM(3, 5, batch_first=True),
    "lstm_stacked": lambda: torch.nn.LSTM(3, 5, 3, batch_first=True),
    "lstm_both_ways": lambda: torch.nn.LSTM(
        3, 5, 2, batch_first=True, bidirectional=True
    ),
    "lstm_without_bias": lambda: torch.nn.LSTM(
        3, 5, bias=False, batch_first=True
    ),
    "gru": lambda: torch.nn.GRU(3, 5, batch_first=True),
    "gru_stacked_both_ways": lambda: torch.nn.GRU(
        3, 4, 2, batch_first=True, bidirectional=True
    ),
    "gru_without_bias": lambda: torch.nn.GRU(
        3, 5, bias=False, batch_first=True
    ),
    "rnn": lambda: torch.nn.RNN(3, 5, batch_first=True),
    "rnn_relu": lambda: torch.nn.RNN(
        3, 5, nonlinearity="relu", batch_first=True
    ),
}


@pytest.fixture(params=MODULES)
def module(request):
    torch.manual_seed(0)
    return MODULES[request.param]()


def error_of(model, module):
    x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype("float32")
    with torch.no_grad():
        device = next(module.parameters()).device
        wanted = module(torch.tensor(x, device=device))[0].cpu().numpy()
    got = keras.ops.convert_to_numpy(model(x))
    return np.abs(got - wanted).max()


def test_a_module_is_the_same_in_keras(module):
    assert error_of(keras_iss.from_torch(module, name="m"), module) < 1e-6


def test_the_state_dict_of_a_larger_model_as_arrays_is_enough(module):
    state = {
        f"encoder.rnn.{key}": value.detach().cpu().numpy()
        for key, value in module.state_dict().items()
    }
    state["head.weight"] = np.zeros((2, 5))
    nonlinearity = getattr(module, "nonlinearity", "tanh")
    model = keras_iss.from_torch(
        state, prefix="encoder.rnn.", nonlinearity=nonlinearity
    )
    assert error_of(model, module) < 1e-6


def test_what_comes_of_it_can_be_searched_for_structures():
    model = keras_iss.from_torch(torch.nn.LSTM(3, 5, 2))
    sizes = [x.size for x in keras_iss.find_structures(model).values()]
    assert sizes == [5, 5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: torch.nn.LSTM(3, 5, proj_size=2), "projections"),
        (lambda: {"weight": np.zeros((2, 2))}, "no `weight_ih_l0`"),
        (
            lambda: {"weight_ih_l0": np.zeros((8, 3))},
            "weight_hh_l0` is missing",
        ),
        (
            lambda: {
                "weight_ih_l0": np.zeros((10, 3)),
                "weight_hh_l0": np.zeros((10, 5)),
            },
            "no LSTM, GRU or RNN",
        ),
        (lambda: 3, "takes an nn.LSTM"),
    ],
)
def test_what_is_none_of_them_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        keras_iss.from_torch(given())
