r"""The paper's question answering: BiDAF, the sizes of its LSTMs learned.

Section 4.3 and table 3 of "Learning Intrinsic Sparse Structures within Long
Short-Term Memory" (Wen et al., ICLR 2018), with SQuAD v1.1:

    python examples/squad_bidaf.py --preset paper --sweep --backend jax \
        --vectors glove.6B.100d.txt

or with a file in SQuAD's format, or questions made of plain-text files:

    python examples/squad_bidaf.py --preset small --sweep --data PATH

Each row of the table is one training: `--list` names them, `--row` runs one.
All go on after a kill, or after `--max-minutes`, with `--resume`.
"""

import dataclasses
import pathlib

from paper import cli

# Units of the modelling and output LSTMs, forward and backward in turn.
PAPER = (
    ((67.98, 77.85), (100, 100, 100, 100, 100, 100), "2.69M"),
    ((67.36, 77.16), (87, 81, 87, 92, 74, 96), "2.29M"),
    ((66.32, 76.22), (51, 33, 42, 58, 37, 26), "1.17M"),
    ((65.36, 75.78), (20, 33, 40, 38, 31, 16), "0.95M"),
    ((64.60, 74.99), (23, 22, 35, 35, 25, 14), "0.88M"),
)


def sizes_of(units, phrase=100):
    """Dict from structure to its size, of a row of the paper's table."""
    from paper.answering import STRUCTURES

    return dict(zip(STRUCTURES, (phrase, phrase, *units)))


def presets():
    """Dict from preset to its plan and rows; needs Keras."""
    from paper.answering import Plan
    from paper.experiment import Row

    def of_paper(number):
        scores, units, weights = PAPER[number]
        return {"scores": scores, "units": units, "weights": weights}

    def fine_tuned(strengths):
        return {
            f"iss_{strength}": Row(
                f"ISS, {strength}", strength=strength, weights_of="dense"
            )
            for strength in strengths
        }

    rows = {"dense": Row("dense", paper=of_paper(0))}
    # The paper has 0.001 for one of its rows, and says no other.
    sparse = fine_tuned((0.001, 0.002, 0.003, 0.004)).items()
    for number, (name, row) in enumerate(sparse, start=1):
        rows[name] = dataclasses.replace(row, paper=of_paper(number))
    for number in range(1, len(PAPER)):
        rows[f"direct_{number}"] = Row(
            f"trained at size {number}", sizes=sizes_of(PAPER[number][1])
        )
    small = Plan(
        units=48,
        filters=24,
        word_size=32,
        batch=32,
        epochs=2,
        parts=8,
        rate=0.003,
        clip=5.0,
        averaging=0.99,
        longest=200,
        longest_question=40,
        at_least=5,
    )
    tiny = dataclasses.replace(
        small, units=8, filters=8, word_size=8, batch=4, epochs=2, parts=2
    )
    # A stronger penalty goes with fewer units; they go in three steps.
    cut = {
        name: dataclasses.replace(
            row,
            cuts=tuple(
                (at, 1 - (1 - left) * gone)
                for at, gone in ((0.125, 0.5), (0.25, 0.75), (0.5, 1.0))
            ),
            changes={"epochs": 1},
        )
        for left, (name, row) in zip(
            (0.7, 0.5, 0.3), fine_tuned((0.002, 0.005, 0.01)).items()
        )
    }
    at_hand = {
        "dense": Row("dense"),
        **cut,
        # As many epochs as the dense model and its fine-tuning have.
        "direct": Row(
            "trained small", sizes_of="iss_0.005", changes={"epochs": 3}
        ),
    }
    return {
        "paper": (Plan(), rows),
        "small": (small, at_hand),
        "tiny": (tiny, at_hand),
    }


def main():
    """Reads the command line and runs."""
    parser = cli.parser(__doc__, ("paper", "small", "tiny"))
    parser.add_argument(
        "--vectors", metavar="PATH", help="word vectors, as GloVe's text files"
    )
    arguments = parser.parse_args()
    cli.choose_backend(arguments.backend)
    from paper import answering

    plan, rows = presets()[arguments.preset]
    if arguments.list:
        print("\n".join(rows))
        return
    cli.names_of(arguments, rows)
    if arguments.out is None:
        arguments.out = pathlib.Path(f"squad_bidaf_{arguments.preset}")
    data = answering.load(arguments.data)
    task = answering.Answering(
        plan, rows, data, arguments.vectors, arguments.seed
    )
    cli.run(arguments, task, answering.COLUMNS, "F1")


if __name__ == "__main__":
    main()
