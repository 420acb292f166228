"""What candidates found in dev and test, kept in a journal: a benchmark that was stopped or refused on a busy machine finds it again."""

from __future__ import annotations

from dropasr.bench.candidates import Candidate
from dropasr.bench.journal import Journal
from dropasr.data.store import FrameStore
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.scoring.wer import WerResult, score
from dropasr.training.row_evaluation import log_test_evaluation

logger = get_logger(__name__)


def journal_of(paths: Paths) -> Journal:
    """The journal of a run's benchmarks."""
    return Journal(paths.system_home / "bench" / "words.jsonl")


def _known(candidate: Candidate, store: FrameStore, positions: list[int], journal: Journal) -> WerResult | None:
    references = {store.ids[position]: store.texts[position] for position in positions}
    lines = (line for line in journal.lines(candidate.identity) if line.keys() == references.keys())
    words = next(lines, None)
    return None if words is None else score(references, words)


def _found(candidate: Candidate, store: FrameStore, positions: list[int], journal: Journal) -> WerResult:
    words = candidate.words(store, positions)
    journal.add(candidate.identity, words)
    return score({store.ids[position]: store.texts[position] for position in positions}, words)


def errors_in(candidate: Candidate, store: FrameStore, positions: list[int], journal: Journal) -> WerResult:
    """Errors in utterances of a store."""
    return _known(candidate, store, positions, journal) or _found(candidate, store, positions, journal)


def errors_on_test(candidate: Candidate, store: FrameStore, positions: list[int], paths: Paths, journal: Journal) -> WerResult:
    """Errors on test; the evaluation is logged before and after, unless the journal has its words."""
    result, known = _known(candidate, store, positions, journal), "found before"
    if result is None:
        about = {"row": candidate.exported.row, "engine": candidate.engine, "folder": candidate.folder.name, "sets": ["test"]}
        log_test_evaluation(paths, "bench begin", {**about, "utterances": len(positions)})
        result, known = _found(candidate, store, positions, journal), "kept, should times have to wait"
        log_test_evaluation(paths, "bench end", {**about, "wer": result.wer, "words": result.words})
    logger.info(f"{candidate.name}: WER {result.wer:.2f} % of {result.words} words ({known})")
    return result
