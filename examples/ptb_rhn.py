"""The paper's Recurrent Highway Network: one width, learned.

Section 4.2 and table 2 of "Learning Intrinsic Sparse Structures within Long
Short-Term Memory" (Wen et al., ICLR 2018), with the Penn Treebank:

    python examples/ptb_rhn.py --preset paper --sweep --backend jax

or with plain-text files at hand, smaller:

    python examples/ptb_rhn.py --preset small --sweep --data FOLDER

Each row of the table is one training: `--list` names them, `--row` runs one.
All go on after a kill, or after `--max-minutes`, with `--resume`.
"""

import dataclasses

from paper import cli

PAPER = (
    (0, (67.9, 65.4), 830, "23.5M"),
    (0.004, (67.5, 65.0), 726, "18.9M"),
    (0.005, (68.1, 65.4), 517, "11.1M"),
    (0.006, (70.3, 67.7), 403, "7.6M"),
    (0.007, (74.5, 71.2), 328, "5.7M"),
)
# Of the input, the state, the output, and of whole words.
DROPOUT = (0.75, 0.25, 0.75, 0.25)


def presets():
    """Dict from preset to its plan and rows; needs Keras."""
    from paper.experiment import Row
    from paper.language import Plan

    paper = Plan(
        units=(830,),
        depth=10,
        epochs=500,
        rate=0.2,
        hold=20,
        decay=1 / 1.02,
        dropout=DROPOUT,
        l2=1e-7,
        threshold=4e-4,
    )
    sparse = {
        "epochs": 150,
        "dropout": tuple(round(0.6 * rate, 4) for rate in DROPOUT),
    }
    rows = {}
    for strength, perplexity, width, weights in PAPER:
        rows[f"iss_{strength}" if strength else "dense"] = Row(
            f"ISS, {strength}" if strength else "dense",
            strength=strength,
            changes=sparse if strength else {},
            paper={
                "perplexity": perplexity,
                "units": width,
                "weights": weights,
            },
        )
    rows["direct"] = Row(
        "trained small", sizes={"rhn": 517}, changes={**sparse}
    )
    # On two cores: Adam, few epochs.
    medium = Plan(
        units=(300,),
        depth=5,
        epochs=2,
        parts=20,
        optimizer="adam",
        rate=0.002,
        schedule="cosine",
        dropout=(0.1, 0.0, 0.1, 0.0),
        threshold=4e-4,
        short=0.05,
    )
    # A stronger penalty goes with fewer units; they go in three steps.
    lambdas = {
        f"iss_{strength}": Row(
            f"ISS, {strength}",
            strength=strength,
            cuts=tuple(
                (at, 1 - (1 - left) * gone)
                for at, gone in ((0.25, 0.5), (0.35, 0.75), (0.45, 1.0))
            ),
        )
        for strength, left in ((0.0005, 0.7), (0.001, 0.5), (0.002, 0.3))
    }
    on_two_cores = {
        "dense": Row("dense"),
        **lambdas,
        "direct": Row("trained small", sizes_of="iss_0.001"),
    }
    small = dataclasses.replace(
        medium, units=(96,), depth=3, vocabulary=5000, parts=4, rate=0.005
    )
    tiny = dataclasses.replace(
        small,
        units=(16,),
        vocabulary=200,
        batch=4,
        steps=10,
        parts=2,
        rate=0.02,
    )
    return {
        "paper": (paper, rows),
        "medium": (medium, on_two_cores),
        "small": (small, on_two_cores),
        "tiny": (tiny, on_two_cores),
    }


def main():
    """Reads the command line and runs."""
    parser = cli.parser(__doc__, ("paper", "medium", "small", "tiny"))
    cli.run_language_model(parser, presets, "HighwayNetwork", "ptb_rhn")


if __name__ == "__main__":
    main()
