"""Hand-computed probabilities for the text `a b a` / `a c`, vocabulary {a, b, c, d}."""

from __future__ import annotations

import math
import random
import time
from fractions import Fraction as F
from itertools import product

import pytest

from dropasr.errors import DataError
from dropasr.lang.ngram import NGram, estimate, kneser_ney_discounts

TEXT = [["a", "b", "a"], ["a", "c"]]
VOCABULARY = ["a", "b", "c", "d"]


def probability(model: NGram, word: str, *history: str) -> float:
    return 10 ** model.log10_probability(word, history)


def test_witten_bell_bigram_by_hand():
    model = estimate(TEXT, 2, "witten_bell", VOCABULARY)
    # unigram counts: a 3, b 1, c 1, </s> 2; 7 tokens, 4 types, 5 events
    unigram = {word: F(count, 11) + F(4, 11) * F(1, 5) for word, count in {"a": 3, "b": 1, "c": 1, "</s>": 2, "d": 0}.items()}
    for word, value in unigram.items():
        assert probability(model, word) == pytest.approx(float(value))
    # after a: b 1, c 1, </s> 1: 3 tokens, 3 types; after <s>: a 2: 2 tokens, 1 type
    assert probability(model, "b", "a") == pytest.approx(float(F(1, 6) + F(3, 6) * unigram["b"]))
    assert probability(model, "a", "a") == pytest.approx(float(F(3, 6) * unigram["a"]))
    assert probability(model, "a", "<s>") == pytest.approx(float(F(2, 3) + F(1, 3) * unigram["a"]))
    assert model.log10_probability("zzz", ["a"]) == -math.inf


def test_kneser_ney_bigram_by_hand():
    model = estimate(TEXT, 2, "kneser_ney", VOCABULARY)
    # too few counts for discounts: 0.5, 1, 1.5.  Left neighbours: a {<s>, b} 2, b {a} 1, c {a} 1, </s> {a, c} 2; 6 bigram types
    d1, d2 = F(1, 2), F(1)
    freed = (2 * d1 + 2 * d2) / 6
    unigram = {"a": (2 - d2) / 6, "b": (1 - d1) / 6, "c": (1 - d1) / 6, "</s>": (2 - d2) / 6, "d": F(0)}
    unigram = {word: value + freed * F(1, 5) for word, value in unigram.items()}
    for word, value in unigram.items():
        assert probability(model, word) == pytest.approx(float(value))
    assert probability(model, "b", "a") == pytest.approx(float((1 - d1) / 3 + 3 * d1 / 3 * unigram["b"]))
    assert probability(model, "d", "a") == pytest.approx(float(3 * d1 / 3 * unigram["d"]))
    assert probability(model, "a", "<s>") == pytest.approx(float((2 - d2) / 2 + d2 / 2 * unigram["a"]))


def test_kneser_ney_lower_orders_count_left_neighbours():
    # "b" occurs four times, always after "a"; "c" twice after different words: Kneser-Ney prefers "c" where nothing is known.
    text = [["a", "b"]] * 4 + [["d", "c"], ["e", "c"]]
    vocabulary = ["a", "b", "c", "d", "e"]
    kneser_ney, witten_bell = (estimate(text, 2, smoothing, vocabulary) for smoothing in ("kneser_ney", "witten_bell"))
    assert probability(kneser_ney, "c") > probability(kneser_ney, "b")
    assert probability(witten_bell, "c") < probability(witten_bell, "b")


def test_discounts_by_hand():
    # n1 4, n2 3, n3 2, n4 1: Y = 4/10
    counts = [1] * 4 + [2] * 3 + [3] * 2 + [4]
    assert kneser_ney_discounts(counts) == pytest.approx((1 - 2 * 0.4 * 3 / 4, 2 - 3 * 0.4 * 2 / 3, 3 - 4 * 0.4 * 1 / 2))
    assert kneser_ney_discounts([5, 6]) == (0.5, 1.0, 1.5)


@pytest.mark.parametrize("smoothing", ["witten_bell", "kneser_ney"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_and_survive_the_file(tmp_path, smoothing, order):
    generator = random.Random(order)
    words = ["a", "b", "c", "d", "e"]
    text = [generator.choices(words[:4], weights=[5, 3, 2, 1], k=generator.randint(1, 6)) for _ in range(60)]
    text.append(["a", "unheard", "b"])
    model = estimate(text, order, smoothing, words)
    model.to_arpa(tmp_path / "lm.arpa")
    read = NGram.from_arpa(tmp_path / "lm.arpa")
    for history in [(), ("<s>",), *product(words, repeat=1), *product(["<s>", *words], words)]:
        assert sum(probability(model, word, *history) for word in [*words, "</s>"]) == pytest.approx(1.0)
        for word in words:
            assert read.log10_probability(word, history) == pytest.approx(model.log10_probability(word, history), abs=1e-5)
    assert all("unheard" not in words for table in model.probabilities for words in table)
    for longer, shorter in zip(model.probabilities[1:], model.probabilities[:-1], strict=True):
        assert all(words[:-1] in shorter and words[1:] in shorter for words in longer)


def test_perplexity_by_hand():
    model = estimate(TEXT, 2, "witten_bell", VOCABULARY)
    scored = [("a", "<s>"), ("b", "a"), ("</s>", "zzz"), ("</s>", "<s>")]
    log10 = sum(model.log10_probability(word, [history]) for word, history in scored)
    result = model.perplexity([["a", "b", "zzz"], []])
    assert result.perplexity == pytest.approx(10 ** (-log10 / 4))
    assert (result.words, result.sentences, result.out_of_vocabulary) == (3, 2, 1)


def test_scores_of_words_and_unigrams():
    model = estimate(TEXT, 3, "kneser_ney", VOCABULARY)
    scores = model.word_scores([["a", "zzz"], ["b"]])
    expected = [("a", ["<s>"]), ("zzz", []), ("</s>", ["a", "zzz"]), ("b", ["<s>"]), ("</s>", ["<s>", "b"])]
    assert scores.tolist() == pytest.approx([model.log10_probability(word, history) for word, history in expected])
    assert model.unigrams() == pytest.approx({word: probability(model, word) for word in VOCABULARY})
    assert model.sizes == [len(table) for table in model.probabilities] == [6, 6, 5]


def test_a_model_without_sentence_begin_and_with_n_grams_in_any_order(tmp_path):
    path = tmp_path / "lm.arpa"
    text = ["\\data\\", "ngram 1=3", "ngram 2=2", "", "\\1-grams:", "-0.5 b -0.2", "-0.4\t</s>", "-0.3 a\t-0.1", "", "\\2-grams:"]
    path.write_text("\n".join([*text, "-0.25 b a", "-0.15\ta\tb", "", "\\end\\", ""]))
    model = NGram.from_arpa(path)
    assert model.words == ("</s>", "a", "b")
    assert model.log10_probability("b", ["a"]) == -0.15 and model.log10_probability("a", ["b"]) == -0.25
    assert model.log10_probability("</s>", ["a"]) == pytest.approx(-0.5)
    assert model.log10_probability("a", ["<s>"]) == -0.3
    assert model.perplexity([["a"]]).log10_probability == pytest.approx(-0.3 - 0.1 - 0.4)
    model.to_arpa(tmp_path / "again.arpa")
    assert NGram.from_arpa(tmp_path / "again.arpa").probabilities == model.probabilities


def test_a_million_words_take_seconds():
    generator = random.Random(1)
    words = [f"w{number}" for number in range(2000)]
    draws = iter(generator.choices(words, weights=[1 / (rank + 1) for rank in range(2000)], k=1_000_000))
    text = [[next(draws) for _ in range(20)] for _ in range(50_000)]
    begin = time.process_time()
    model = estimate(text, 3, "kneser_ney", words)
    assert time.process_time() - begin < 10
    begin = time.process_time()
    model.perplexity(text[:5000])
    assert time.process_time() - begin < 5


def test_errors(tmp_path):
    with pytest.raises(DataError, match="empty"):
        estimate([], 2, "witten_bell", VOCABULARY)
    path = tmp_path / "lm.arpa"
    estimate(TEXT, 2, "witten_bell", VOCABULARY).to_arpa(path)
    whole = path.read_text()
    for text, message in [
        (whole[: len(whole) // 2], "lm.arpa"),
        (whole.replace("ngram 1=6", "ngram 1=7"), "declares"),
        (whole.replace("\ta b\n", "\ta b c d e\n"), "line"),
        (whole.replace("ngram 2=", "ngrams two"), "ORDER=COUNT"),
        (whole.replace("\ta b\n", "\ta zzz\n"), "'zzz' has no unigram"),
        (whole.replace("\ta b\n", "\ta c\n"), "'a c' stands there twice"),
    ]:
        assert text != whole
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            NGram.from_arpa(path)
