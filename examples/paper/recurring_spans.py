"""Questions from plain texts: which words stood here?

A passage; a sentence from elsewhere in the same document, in which a span
that the passage has too is blanked; the answer is the span in the passage.

    python examples/paper/recurring_spans.py FOLDER questions.json
"""

import argparse
import collections
import json
import pathlib
import random
import re

SENTENCE = re.compile(r"[^.!?]+[.!?]+[\"')\]]*\s*")
WORD = re.compile(r"\w+(?:['-]\w+)*")
BLANK = "_____"
PASSAGE = 90
SENTENCE_WORDS = (8, 45)
LONGEST_SPAN = 4
# A span must be this rare in its document.
MOST = 12


def sentences(text):
    """The sentences of a text, with the whitespace after each."""
    found = SENTENCE.findall(text)
    return found or [text]


def passages(text):
    """Runs of sentences, of about `PASSAGE` words.

    Returns:
        List of lists of sentences.
    """
    result, current, words = [], [], 0
    for sentence in sentences(text):
        current.append(sentence)
        words += len(WORD.findall(sentence))
        if words >= PASSAGE:
            result.append(current)
            current, words = [], 0
    return result


def spans(text, common):
    """Dict from lower-case span to where in the text it stands."""
    words = [
        (m.group().lower(), m.start(), m.end()) for m in WORD.finditer(text)
    ]
    found = collections.defaultdict(list)
    for i in range(len(words)):
        for size in range(1, LONGEST_SPAN + 1):
            piece = words[i : i + size]
            if len(piece) < size:
                break
            edges = (piece[0][0], piece[-1][0])
            if any(edge in common or len(edge) < 3 for edge in edges):
                continue
            start, end = piece[0][1], piece[-1][2]
            if re.search(r"[.!?;]", text[start:end]):
                break
            found[" ".join(w for w, _, _ in piece)].append((start, end))
    return found


def questions(name, text, common, each, rng):
    """The questions of one document, as paragraphs of SQuAD's format.

    Args:
        name: String.
        text: String.
        common: Set of words that no span begins or ends with.
        each: Integer, questions for a passage, at most.
        rng: `random.Random`.
    """
    parts = passages(text)
    places = collections.defaultdict(list)
    for p, part in enumerate(parts):
        for s, sentence in enumerate(part):
            count = len(WORD.findall(sentence))
            if SENTENCE_WORDS[0] <= count <= SENTENCE_WORDS[1]:
                for span, where in spans(sentence, common).items():
                    places[span].append((p, s, where))
    result = []
    for p, part in enumerate(parts):
        context = "".join(part).strip()
        inside = spans(context, common)
        candidates = [
            span
            for span, where in inside.items()
            if len(where) == 1
            and len(places[span]) <= MOST
            and any(other != p for other, _, _ in places[span])
        ]
        # A span within a longer one that recurs too says less.
        candidates = [
            span
            for span in candidates
            if not any(
                span != other and f" {span} " in f" {other} "
                for other in candidates
            )
        ]
        candidates.sort()
        rng.shuffle(candidates)
        # Longer ones say more.
        candidates.sort(key=lambda span: -len(span.split()))
        entries = []
        for span in candidates[:each]:
            elsewhere = [x for x in places[span] if x[0] != p]
            q, s, where = rng.choice(elsewhere)
            sentence = parts[q][s]
            start, end = where[0]
            asked = sentence[:start] + BLANK + sentence[end:]
            begin, stop = inside[span][0]
            entries.append(
                {
                    "id": f"{name}-{p}-{len(entries)}",
                    "question": " ".join(asked.split()),
                    "answers": [
                        {"text": context[begin:stop], "answer_start": begin}
                    ],
                }
            )
        if entries:
            result.append({"context": context, "qas": entries})
    return result


def make(folder, each=2, seed=0):
    """Questions about a folder of plain-text files, in SQuAD's format.

    Args:
        folder: Path of the folder.
        each: Integer, questions for a passage, at most.
        seed: Integer.
    """
    paths = sorted(pathlib.Path(folder).glob("*.txt"))
    if not paths:
        raise SystemExit(f"`{folder}` has no files *.txt.")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    counts = collections.Counter(
        m.group().lower()
        for text in texts.values()
        for m in WORD.finditer(text)
    )
    common = {
        word for word, _ in counts.most_common(min(300, len(counts) // 10))
    }
    rng = random.Random(seed)
    data = [
        {"title": name, "paragraphs": questions(name, text, common, each, rng)}
        for name, text in texts.items()
    ]
    return {"version": f"recurring spans, seed {seed}", "data": data}


def main():
    """Writes a file of questions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    made = make(arguments.folder, arguments.each, arguments.seed)
    arguments.path.write_text(json.dumps(made))
    count = sum(len(p["qas"]) for a in made["data"] for p in a["paragraphs"])
    print(f"{count:,} questions about {len(made['data'])} documents")


if __name__ == "__main__":
    main()
