"""The paper's stacked LSTMs: a language model, its sizes learned.

Section 4.1 and table 1 of "Learning Intrinsic Sparse Structures within Long
Short-Term Memory" (Wen et al., ICLR 2018), with the Penn Treebank:

    python examples/ptb_lstm.py --preset paper --sweep --backend jax

or with plain-text files at hand, smaller:

    python examples/ptb_lstm.py --preset small --sweep --data FOLDER

Each row of the table is one training: `--list` names them, `--row` runs one.
All go on after a kill, or after `--max-minutes`, with `--resume`.
"""

import dataclasses

from paper import cli


def presets():
    """Dict from preset to its plan and rows; needs Keras."""
    from paper.experiment import Row
    from paper.language import Plan

    paper = Plan(units=(1500, 1500))
    # A third of the epochs each, the rate divided by ten after each.
    sparse = {"schedule": "thirds", "decay": 0.1, "dropout": 0.4}
    rows = {
        "dense": Row(
            "dense",
            paper={
                "perplexity": (82.57, 78.57),
                "units": (1500, 1500),
                "weights": "66.0M",
            },
        ),
        "iss_0.003": Row(
            "ISS, 0.003",
            strength=0.003,
            changes=sparse,
            paper={
                "perplexity": (82.59, 78.65),
                "units": (373, 315),
                "weights": "21.8M",
            },
        ),
        "iss_0.00245": Row(
            "ISS, 0.00245",
            strength=0.00245,
            changes=sparse,
            paper={
                "perplexity": (80.24, 76.03),
                "units": (381, 535),
                "weights": "25.2M",
            },
        ),
        "direct": Row(
            "trained small",
            sizes={"lstm_1": 373, "lstm_2": 315},
            changes={"dropout": 0.45},
            paper={
                "perplexity": (90.31, 85.66),
                "units": (373, 315),
                "weights": "21.8M",
            },
        ),
        "l1": Row(
            "L1, 0.0001",
            l1=1e-4,
            changes={**sparse, "threshold": 2e-4},
        ),
    }
    # On two cores: Adam, few epochs; the weakest units are cut out on the
    # way, under a light penalty, and the rest learns on.
    cuts = ((0.25, 0.8), (0.35, 0.6), (0.45, 0.4))
    medium = Plan(
        units=(650, 650),
        epochs=2,
        parts=20,
        optimizer="adam",
        rate=0.002,
        schedule="cosine",
        clip=35.0,
        dropout=0.2,
    )
    on_two_cores = {
        "dense": Row("dense"),
        "iss": Row("ISS", strength=0.002, cuts=cuts),
        "direct": Row("trained small", sizes_of="iss"),
    }
    small = dataclasses.replace(
        medium, units=(128, 128), vocabulary=5000, parts=4, rate=0.005
    )
    tiny = dataclasses.replace(
        small,
        units=(16, 16),
        vocabulary=200,
        batch=4,
        steps=10,
        parts=2,
        rate=0.02,
    )
    lambdas = {
        f"iss_{strength}": Row(f"ISS, {strength}, no cuts", strength=strength)
        for strength in (0.01, 0.03, 0.1)
    }
    few = {**on_two_cores, **lambdas, "l1": Row("L1, 0.003", l1=0.003)}
    return {
        "paper": (paper, rows),
        "medium": (medium, on_two_cores),
        "small": (small, few),
        "tiny": (tiny, few),
    }


def main():
    """Reads the command line and runs."""
    parser = cli.parser(__doc__, ("paper", "medium", "small", "tiny"))
    cli.run_language_model(parser, presets, "StackedLSTMs", "ptb_lstm")


if __name__ == "__main__":
    main()
