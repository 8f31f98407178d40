"""Questions about passages: reading, numbering, batches, and scores."""

import collections
import dataclasses
import json
import pathlib
import re
import string

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]")
PADDING, UNKNOWN = 0, 1
LONGEST_ANSWER = 17


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a passage.

    Attributes:
        id: String.
        title: String, the article.
        context: String, the passage.
        question: String.
        answers: Tuple of strings, each of them right.
        start: Integer, the character at which the first of them begins.
    """

    id: str
    title: str
    context: str
    question: str
    answers: tuple
    start: int


def tokenize(text):
    """The tokens of a text: triples of word, first and last character + 1."""
    return [(m.group(), m.start(), m.end()) for m in TOKEN.finditer(text)]


def token_span(tokens, start, end):
    """The first and last token that overlap the characters `[start, end)`.

    Args:
        tokens: As `tokenize` gives them.
        start: Integer.
        end: Integer.

    Returns:
        A pair of integers, or `None` if no token does.
    """
    inside = [i for i, (_, a, b) in enumerate(tokens) if a < end and b > start]
    return (inside[0], inside[-1]) if inside else None


def text_of(context, tokens, first, last):
    """The characters of the passage from one token to another."""
    return context[tokens[first][1] : tokens[last][2]]


# Reading.


def read_squad_json(path):
    """The questions of a file in the format of SQuAD v1.1.

    Args:
        path: Path of the file.

    Returns:
        List of `Question`.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SystemExit(f"`{path}` is not JSON: {error}.") from error
    return questions_of(content, str(path))


def questions_of(content, source):
    """The questions of what a file in SQuAD's format holds."""
    found = []
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for entry in paragraph["qas"]:
                    answers = entry["answers"]
                    found.append(
                        Question(
                            id=str(entry["id"]),
                            title=article.get("title", ""),
                            context=paragraph["context"],
                            question=entry["question"],
                            answers=tuple(a["text"] for a in answers),
                            start=answers[0]["answer_start"],
                        )
                    )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SystemExit(
            f"`{source}` is not in the format of SQuAD v1.1: "
            f"{type(error).__name__}: {error}. It is data, paragraphs, qas; "
            "each question has an id and answers, with text and answer_start."
        ) from error
    if not found:
        raise SystemExit(f"`{source}` has no question.")
    for question in found:
        check(question, source)
    return found


def check(question, source):
    """Raises if an answer is not where it is said to be."""
    answer = question.answers[0]
    end = question.start + len(answer)
    there = question.context[question.start : end]
    if not answer or there != answer:
        raise SystemExit(
            f"`{source}`, question {question.id!r}: the answer {answer!r} is "
            f"not in its passage at character {question.start}, where it has "
            f"{there!r}. Mend the file or take the question out."
        )


def squad(data_dir=None):
    """SQuAD v1.1 by TensorFlow Datasets: training and validation questions."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise SystemExit(
            'SQuAD is read by TensorFlow Datasets: `pip install -e "'
            '.[examples]"`. Or give a file in its format with `--data`.'
        ) from error
    parts = []
    for split in ("train", "validation"):
        try:
            entries = tfds.as_numpy(
                tfds.load("squad", split=split, data_dir=data_dir)
            )
        except Exception as error:
            raise SystemExit(
                "SQuAD could not be prepared: "
                f"{type(error).__name__}: "
                f"{str(error).strip().splitlines()[0]}\nWithout a network "
                "give a file in its format, or a folder of texts, with "
                "`--data`."
            ) from error
        parts.append(
            [
                Question(
                    id=entry["id"].decode(),
                    title=entry["title"].decode(),
                    context=entry["context"].decode(),
                    question=entry["question"].decode(),
                    answers=tuple(t.decode() for t in entry["answers"]["text"]),
                    start=int(entry["answers"]["answer_start"][0]),
                )
                for entry in entries
            ]
        )
    return parts


def by_article(questions, tested):
    """Splits questions: the last articles by title are for the test.

    Args:
        questions: List of `Question`.
        tested: Integer, how many articles.

    Returns:
        Two lists.
    """
    titles = sorted({question.title for question in questions})
    if len(titles) <= tested:
        raise SystemExit(
            f"The questions are about {len(titles)} articles: more than "
            f"{tested} are needed, of which {tested} are for the test."
        )
    held_out = set(titles[-tested:])
    return (
        [question for question in questions if question.title not in held_out],
        [question for question in questions if question.title in held_out],
    )


# Numbering.


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Words and characters by number; of words, first those without vector.

    Attributes:
        words: Dict from lower-case word to integer.
        characters: Dict from character to integer.
        words_without_vector: Integer, with padding and unknown words.
        vectors: Optional array, one row for each of the other words.
        word_length: Integer, characters of a word that are read.
    """

    words: dict
    characters: dict
    words_without_vector: int
    vectors: np.ndarray | None
    word_length: int = 16

    @classmethod
    def of(cls, questions, vectors=None, at_least=2, size=100):
        """Numbers what training questions are made of.

        Args:
            questions: List of `Question`.
            vectors: Optional path of a text file of word vectors.
            at_least: Integer, how often a word must occur to be known.
            size: Integer, of the vectors.
        """
        counts, characters = collections.Counter(), collections.Counter()
        for context in {asked.context for asked in questions}:
            counts.update(w.lower() for w, _, _ in tokenize(context))
            characters.update(context)
        for asked in questions:
            counts.update(w.lower() for w, _, _ in tokenize(asked.question))
        frequent = sorted(w for w, n in counts.items() if n >= at_least)
        letters = sorted(c for c, n in characters.items() if n >= at_least)
        table, without = None, []
        if vectors is not None:
            known = read_vectors(vectors, set(counts), size)
            without = [w for w in frequent if w not in known]
            frequent = sorted(known)
            table = np.array([known[w] for w in frequent], "float32")
            table = table.reshape(-1, size)
            if not frequent:
                raise SystemExit(
                    f"`{vectors}` has a vector for none of the words."
                )
        order = [*without, *frequent]
        return cls(
            words={word: i + 2 for i, word in enumerate(order)},
            characters={c: i + 2 for i, c in enumerate(letters)},
            words_without_vector=len(without) + 2,
            vectors=table,
        )

    def number(self, tokens):
        """Words and characters of some tokens, as integer arrays."""
        words = np.zeros(len(tokens), "int32")
        spelt = np.zeros((len(tokens), self.word_length), "int32")
        for i, (word, _, _) in enumerate(tokens):
            words[i] = self.words.get(word.lower(), UNKNOWN)
            letters = [
                self.characters.get(c, UNKNOWN)
                for c in word[: self.word_length]
            ]
            spelt[i, : len(letters)] = letters
        return words, spelt


def read_vectors(path, wanted, size):
    """Word vectors of a text file, as GloVe's: a word, then its numbers.

    Args:
        path: Path of the file.
        wanted: Set of words; others are skipped.
        size: Integer, numbers in a vector.

    Returns:
        Dict from word to list of floats.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SystemExit(f"`--vectors {path}` is no file.")
    found = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            word, *values = line.rstrip("\n").split(" ")
            try:
                vector = [float(value) for value in values]
            except ValueError:
                vector = []
            if len(vector) != size or not np.isfinite(vector).all():
                raise SystemExit(
                    f"`{path}`, line {number}: a word and {size} numbers were "
                    f"expected, found {line[:40]!r}... with {len(values)}."
                )
            if word in wanted:
                found[word] = vector
    return found


@dataclasses.dataclass(frozen=True)
class Numbered:
    """A question as a model reads it."""

    question: Question
    tokens: list
    context: tuple
    asked: tuple
    span: tuple | None


def numbered(questions, vocabulary, longest, longest_question):
    """Questions as numbers.

    Args:
        questions: List of `Question`.
        vocabulary: `Vocabulary`.
        longest: Integer: longer passages are cut off.
        longest_question: Integer, likewise.

    Returns:
        List of `Numbered`. The span of one whose answer was cut off is
        `None`.
    """
    tokenized, result = {}, []
    for question in questions:
        if question.context not in tokenized:
            tokens = tokenize(question.context)[:longest]
            tokenized[question.context] = (tokens, vocabulary.number(tokens))
        tokens, context = tokenized[question.context]
        asked = vocabulary.number(
            tokenize(question.question)[:longest_question]
        )
        end = question.start + len(question.answers[0])
        span = token_span(tokens, question.start, end)
        if span is not None and tokens[span[1]][2] < end:
            span = None
        if not len(context[0]) or not len(asked[0]):
            continue
        result.append(Numbered(question, tokens, context, asked, span))
    return result


def batched(items, size, seed=None, bucket=20):
    """Batches of questions whose passages are of about the same length.

    Args:
        items: List of `Numbered`.
        size: Integer, questions in a batch.
        seed: Optional integer. If given, the order is random, and what does
            not fill a batch is left out.
        bucket: Integer: lengths are padded to its multiples.

    Returns:
        List of lists of `Numbered`.
    """
    random = None if seed is None else np.random.default_rng(seed)
    order = np.arange(len(items))
    if random is not None:
        order = random.permutation(order)
    lengths = [-(-len(items[i].tokens) // bucket) for i in order]
    order = order[np.argsort(lengths, kind="stable")]
    batches = [
        [items[i] for i in order[at : at + size]]
        for at in range(0, len(order), size)
    ]
    if random is not None:
        batches = [b for b in batches if len(b) == size] or batches
        batches = [batches[i] for i in random.permutation(len(batches))]
    return batches


def arrays(batch, word_length, bucket=20, shortest_question=20):
    """The inputs of a batch, padded, and its targets.

    Args:
        batch: List of `Numbered`.
        word_length: Integer.
        bucket: Integer: passages are padded to its multiples.
        shortest_question: Integer: questions are padded to its multiples.

    Returns:
        Two dicts of arrays.
    """
    inputs = {}
    for name, size in (("context", bucket), ("question", shortest_question)):
        pairs = [b.context if name == "context" else b.asked for b in batch]
        longest = max(len(words) for words, _ in pairs)
        longest = -(-longest // size) * size
        words = np.zeros((len(batch), longest), "int32")
        spelt = np.zeros((len(batch), longest, word_length), "int32")
        for i, (word, letters) in enumerate(pairs):
            words[i, : len(word)] = word
            spelt[i, : len(word)] = letters
        inputs[f"{name}_words"] = words
        inputs[f"{name}_characters"] = spelt
    spans = [b.span or (0, 0) for b in batch]
    targets = {
        "start": np.array([first for first, _ in spans], "int32"),
        "end": np.array([last for _, last in spans], "int32"),
    }
    return inputs, targets


# Answers and their scores.


def best_span(start, end, longest=LONGEST_ANSWER):
    """The most probable span.

    Args:
        start: Array of logits, one for each token.
        end: Likewise.
        longest: Integer, tokens of an answer.

    Returns:
        A pair of integers, first and last token.
    """
    best, found = -np.inf, (0, 0)
    for first in range(len(start)):
        last = first + int(np.argmax(end[first : first + longest]))
        if start[first] + end[last] > best:
            best, found = start[first] + end[last], (first, last)
    return found


def normalized(answer):
    """Lower case, without punctuation and articles, as SQuAD compares."""
    answer = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", answer).split())


def exact_match(answer, right):
    """1.0 if the answer is one of the right ones, else 0.0."""
    return float(any(normalized(answer) == normalized(r) for r in right))


def f1(answer, right):
    """The best harmonic mean of precision and recall of its words."""
    return max(_f1(normalized(answer).split(), normalized(r)) for r in right)


def _f1(words, right):
    right = right.split()
    common = sum(
        (collections.Counter(words) & collections.Counter(right)).values()
    )
    if not words or not right:
        return float(words == right)
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(right)
    return 2 * precision * recall / (precision + recall)
