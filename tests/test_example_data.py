"""What the examples make of text: words, spans, scores, and clear messages."""

import dataclasses
import json
import pathlib
import sys

import keras
import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from paper import answering, questions, recurring_spans, text

from tests.example_texts import write_texts

XQUAD = EXAMPLES.parent.parent / "shared" / "data" / "xquad" / "xquad.en.json"

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="once is enough"
)


def squad(context, answer, start, **more):
    entry = {
        "id": "q1",
        "question": "Which?",
        "answers": [{"text": answer, "answer_start": start}],
        **more,
    }
    paragraph = {"context": context, "qas": [entry]}
    return {"data": [{"title": "t", "paragraphs": [paragraph]}]}


# Streams of text.


def test_a_stream_goes_on_in_the_same_row_of_the_next_batch():
    inputs, targets = text.streams(np.arange(26), batch=3, steps=4)
    assert inputs.shape == targets.shape == (2, 3, 4)
    np.testing.assert_array_equal(inputs[0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(inputs[1, 0], [4, 5, 6, 7])
    np.testing.assert_array_equal(inputs[0, 1], [8, 9, 10, 11])
    np.testing.assert_array_equal(targets, inputs + 1)


def test_the_most_frequent_words_of_the_training_text_are_known():
    parts = {"train": "b a b c a b".split(), "valid": ["c"], "test": ["b"]}
    corpus = text.Corpus.of(parts, 3, "here")
    assert corpus.words == [text.UNKNOWN, "b", "a"]
    np.testing.assert_array_equal(corpus.train, [1, 2, 1, 0, 2, 1])
    np.testing.assert_array_equal(corpus.valid, [0])


def test_of_ten_documents_one_validates_and_one_tests(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(f"it's word{i} 1,000 times!")
    corpus = text.text_folder(tmp_path, 100)
    words = {
        part: [corpus.words[i] for i in getattr(corpus, part)]
        for part in text.PARTS
    }
    assert words["train"][:6] == ["it's", "word", "1", "1,000", "times", "!"]
    assert len(words["train"]) == 8 * 7
    assert words["valid"][:3] == ["it's", "word", text.UNKNOWN]


# Questions.


def test_a_span_of_characters_is_found_in_tokens_and_back():
    context = "In 1850-51, the Queen's (own) guard."
    tokens = questions.tokenize(context)
    for answer in ("1850-51", "Queen's", "(own)", "guard", "the Queen"):
        start = context.index(answer)
        span = questions.token_span(tokens, start, start + len(answer))
        assert questions.text_of(context, tokens, *span) == answer
    # A part of a token is the whole token.
    span = questions.token_span(tokens, context.index("50"), 6)
    assert questions.text_of(context, tokens, *span) == "1850"
    assert questions.token_span(tokens, 2, 3) is None


@pytest.mark.parametrize(
    ("answer", "right", "exact", "overlap"),
    [
        ("the Norman conquest!", ["Norman Conquest"], 1, 1),
        ("Norman", ["Norman Conquest", "1066"], 0, 2 / 3),
        ("in 1066", ["Norman Conquest", "1066"], 0, 2 / 3),
        ("a cat sat on a mat", ["the cat on the mat"], 0, 2 * 3 / 7),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 1),
        ("dog", ["cat"], 0, 0),
    ],
)
def test_exact_match_and_f1_on_worked_cases(answer, right, exact, overlap):
    assert questions.exact_match(answer, right) == exact
    assert questions.f1(answer, right) == pytest.approx(overlap)


def test_the_best_span_ends_where_it_begins_or_later():
    start = np.array([0.0, 1.0, 5.0, 0.0])
    end = np.array([9.0, 0.0, 1.0, 3.0])
    assert questions.best_span(start, end) == (0, 0)
    assert questions.best_span(start, end - [8, 0, 0, 0]) == (2, 3)
    assert questions.best_span(start, end - [8, 0, 0, 0], longest=1) == (2, 2)


def test_an_answer_that_is_cut_off_trains_nothing():
    (question,) = questions.questions_of(squad("a b c d e", "d e", 6), "here")
    vocabulary = questions.Vocabulary.of([question], at_least=1)
    (whole,) = questions.numbered([question], vocabulary, 5, 9)
    assert whole.span == (3, 4)
    for longest in (3, 4):
        (cut,) = questions.numbered([question], vocabulary, longest, 9)
        assert cut.span is None and len(cut.tokens) == longest


def test_batches_hold_passages_of_about_one_length():
    made = [
        questions.questions_of(squad("w " * n + "x", "x", 2 * n), "here")[0]
        for n in (3, 90, 5, 80, 4, 85)
    ]
    vocabulary = questions.Vocabulary.of(made, at_least=1)
    items = questions.numbered(made, vocabulary, 200, 9)
    batches = questions.batched(items, 3, seed=0)
    lengths = sorted(sorted(len(n.tokens) for n in b) for b in batches)
    assert lengths == [[4, 5, 6], [81, 86, 91]]
    inputs, targets = questions.arrays(batches[0], 16)
    assert inputs["context_words"].shape[1] % 20 == 0
    for i, question in enumerate(batches[0]):
        at = targets["start"][i]
        x = vocabulary.words["x"]
        assert inputs["context_words"][i, at] == x
        assert (inputs["context_words"][i, len(question.tokens) :] == 0).all()


def test_words_with_a_vector_come_after_those_without(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("which 1 2\nzebra 9 9\nb 3 4\n")
    (question,) = questions.questions_of(squad("a b a b q", "b", 2), "here")
    made = questions.Vocabulary.of([question], path, at_least=2, size=2)
    assert made.words == {"a": 2, "b": 3, "which": 4}
    assert made.words_without_vector == 3
    np.testing.assert_array_equal(made.vectors, [[3, 4], [1, 2]])


def test_made_questions_have_their_answers_in_the_passage(tmp_path):
    write_texts(tmp_path, documents=3)
    made = recurring_spans.make(tmp_path, each=3, seed=1)
    found = questions.questions_of(made, "made")
    assert len(found) > 5
    for question in found:
        assert recurring_spans.BLANK in question.question
        answer = question.answers[0]
        assert question.context.lower().count(answer.lower()) == 1
    assert made == recurring_spans.make(tmp_path, each=3, seed=1)
    assert made != recurring_spans.make(tmp_path, each=3, seed=2)


@pytest.mark.skipif(not XQUAD.exists(), reason="the shared data are not here")
def test_xquad_is_read_and_its_answers_survive_tokens():
    found = questions.read_squad_json(XQUAD)
    assert len(found) == 1190
    same = 0
    for question in found:
        tokens = questions.tokenize(question.context)
        end = question.start + len(question.answers[0])
        span = questions.token_span(tokens, question.start, end)
        answer = questions.text_of(question.context, tokens, *span)
        same += questions.exact_match(answer, question.answers)
    assert same / len(found) > 0.98
    train, test = questions.by_article(found, answering.TESTED_ARTICLES)
    assert len({q.title for q in train}) == 40
    assert len({q.title for q in test}) == 8


# Bad input.


def test_a_file_that_is_not_json(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{not json")
    with pytest.raises(SystemExit, match="x.json` is not JSON"):
        answering.load(path)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"rows": []},
        {"data": [{"paragraphs": [{"qas": []}]}, 3]},
        squad("a b", "a", 0, answers=[]),
    ],
)
def test_json_that_is_not_squad(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="x.json` is not in the format"):
        answering.load(path)


@pytest.mark.parametrize(
    ("answer", "start"), [("cat", 1), ("dog", 0), ("cat", 90), ("", 0)]
)
def test_an_answer_that_is_not_in_its_passage(tmp_path, answer, start):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(squad("cat sat", answer, start)))
    with pytest.raises(SystemExit, match="question 'q1': the answer"):
        answering.load(path)


@pytest.mark.parametrize(
    "line", ["word", "word 1", "word 1 2 3", "word 1 x", "word 1 nan", ""]
)
def test_a_bad_line_of_vectors_is_named(tmp_path, line):
    path = tmp_path / "vectors.txt"
    path.write_text(f"good 1 2\n{line}\n")
    with pytest.raises(SystemExit, match="vectors.txt`, line 2: a word and 2"):
        questions.read_vectors(path, {"good"}, 2)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no folder"):
        text.text_folder(tmp_path / "no", 9)
    with pytest.raises(SystemExit, match="0 files"):
        text.text_folder(tmp_path, 9)
    with pytest.raises(SystemExit, match="does not exist"):
        answering.load(tmp_path / "no")
    with pytest.raises(SystemExit, match="is no file"):
        questions.read_vectors(tmp_path / "no", set(), 2)
    with pytest.raises(SystemExit, match=r"no files \*.txt"):
        answering.load(tmp_path)
    (question,) = questions.questions_of(squad("a b", "a", 0), "here")
    with pytest.raises(SystemExit, match="1 articles"):
        questions.by_article(
            [question, dataclasses.replace(question, id="2")], 8
        )


def test_too_little_text_is_said():
    with pytest.raises(SystemExit, match="9 tokens are too few"):
        text.streams(np.arange(9), 4, 5)
