"""Word error rate over a whole set, with the alignment of every utterance; character errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import kaldialign

from dropasr.errors import MeasurementError

GAP = "***"
Pair = tuple["str | None", "str | None"]
_GAP_NUMBER = -1


@dataclass(frozen=True)
class UtteranceErrors:
    """Errors of one utterance; `alignment` has one pair (reference word, hypothesis word) per column, None where one has no word."""

    id: str
    words: int
    substitutions: int
    deletions: int
    insertions: int
    alignment: tuple[Pair, ...]

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference(self) -> list[str]:
        """The words of the reference."""
        return [word for word, _ in self.alignment if word is not None]

    @property
    def hypothesis(self) -> list[str]:
        """The words of the hypothesis."""
        return [word for _, word in self.alignment if word is not None]


@dataclass(frozen=True)
class WerResult:
    """Errors of a set of utterances, in the order of the references."""

    words: int
    substitutions: int
    deletions: int
    insertions: int
    utterances: list[UtteranceErrors]

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Errors per reference word, in percent, over the whole set."""
        return 100.0 * self.errors / self.words


def align_words(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """A Levenshtein alignment of two word sequences as pairs, None in the place of a missing word."""
    # Numbers instead of words, so that no word can be taken for the gap symbol.
    vocabulary = list(dict.fromkeys([*reference, *hypothesis]))
    number = {word: position for position, word in enumerate(vocabulary)}
    pairs = kaldialign.align([number[word] for word in reference], [number[word] for word in hypothesis], _GAP_NUMBER)
    return [(None if a == _GAP_NUMBER else vocabulary[a], None if b == _GAP_NUMBER else vocabulary[b]) for a, b in pairs]


def score_utterance(id: str, reference: Sequence[str], hypothesis: Sequence[str]) -> UtteranceErrors:
    """Align one utterance and count its errors. An empty reference is a MeasurementError."""
    if not reference:
        raise MeasurementError(
            f"utterance '{id}': the reference is empty, so its errors have no share of words. Drop it in stage 1 (data)."
        )
    pairs = align_words(reference, hypothesis)
    insertions = sum(a is None for a, _ in pairs)
    deletions = sum(b is None for _, b in pairs)
    substitutions = sum(a is not None and b is not None and a != b for a, b in pairs)
    return UtteranceErrors(id, len(reference), substitutions, deletions, insertions, tuple(pairs))


def character_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int]:
    """Characters of the reference, and the fewest substitutions, deletions and insertions of characters; spaces do not count."""
    wanted, found = "".join(reference), "".join(hypothesis)
    return len(wanted), kaldialign.edit_distance(list(wanted), list(found))["total"]


def score(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, Sequence[str]]) -> WerResult:
    """Score hypotheses against references, both word lists by utterance id. An empty hypothesis is all deletions.

    Raises MeasurementError naming the utterance for an empty reference, a reference without hypothesis, or a hypothesis
    without reference, and if there is nothing to score.
    """
    if not references:
        raise MeasurementError("there are no references, so there is no word error rate. Check the manifest of this split (stage 1).")
    missing = [id for id in references if id not in hypotheses]
    if missing:
        count = f"{len(missing)} of {len(references)}"
        raise MeasurementError(
            f"utterance '{missing[0]}': expected a hypothesis, found none ({count} are missing). Decode the whole set again."
        )
    unknown = [id for id in hypotheses if id not in references]
    if unknown:
        raise MeasurementError(f"utterance '{unknown[0]}': a hypothesis without a reference. Score with the references that were decoded.")
    utterances = [score_utterance(id, reference, hypotheses[id]) for id, reference in references.items()]
    return WerResult(
        words=sum(item.words for item in utterances),
        substitutions=sum(item.substitutions for item in utterances),
        deletions=sum(item.deletions for item in utterances),
        insertions=sum(item.insertions for item in utterances),
        utterances=utterances,
    )


def alignment_text(result: WerResult) -> str:
    """All utterances for people to read: id and counts, then reference, hypothesis and error marks (S, D, I) in columns."""
    lines = [f"WER {result.wer:.2f} % of {result.words} words: {_counts(result)}", ""]
    for item in result.utterances:
        columns = [(a or GAP, b or GAP, _mark(a, b)) for a, b in item.alignment]
        widths = [max(map(len, column)) for column in columns]
        lines.append(f"{item.id}: {item.words} words, {_counts(item)}")
        for row, name in enumerate(("REF:", "HYP:", "    ")):
            cells = [column[row].ljust(width) for column, width in zip(columns, widths, strict=True)]
            lines.append(f"{name} {' '.join(cells)}".rstrip())
        lines.append("")
    return "\n".join(lines) + "\n"


def _counts(item: WerResult | UtteranceErrors) -> str:
    return f"{item.substitutions} substitutions, {item.deletions} deletions, {item.insertions} insertions"


def _mark(reference: str | None, hypothesis: str | None) -> str:
    if reference is None:
        return "I"
    if hypothesis is None:
        return "D"
    return "" if reference == hypothesis else "S"
