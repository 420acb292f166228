"""Checks of manifests, audio and transcripts before anything is computed from them. Every check raises DataError, none asserts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropasr.config import CorpusConfig
from dropasr.data.audio import check_audio
from dropasr.data.text import Normaliser
from dropasr.errors import DataError
from dropasr.files import read_lines

if TYPE_CHECKING:
    from lhotse import MonoCut, RecordingSet, SupervisionSegment, SupervisionSet

_TOLERANCE = 0.001
"""Seconds by which a supervision may pass the end of its recording: manifests round times to milliseconds."""
_SHORTEST = 0.05
"""Seconds of an utterance: a frame of features at twice the speed, the highest of `features.speed_perturb`."""


@dataclass
class Split:
    """What is left of one split: its cuts, sorted by id, and what was dropped or changed."""

    name: str
    seen: int
    cuts: list[MonoCut] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    mapped_words: Counter[str] = field(default_factory=Counter)
    unknown_words: Counter[str] = field(default_factory=Counter)
    """Words outside the lexicon that stay in the references of dev and the tests."""
    normalised: int = 0

    def sentences(self) -> list[str]:
        """Transcripts in the order of the cuts."""
        return [cut.supervisions[0].text for cut in self.cuts]

    def speakers(self) -> dict[str, str]:
        """Each speaker with one of their utterances."""
        return {cut.supervisions[0].speaker: cut.id for cut in self.cuts}

    def report(self) -> dict[str, Any]:
        """The counts that go into `manifests/report.json`."""
        return {
            "seen": self.seen,
            "utterances": len(self.cuts),
            "hours": round(sum(cut.duration for cut in self.cuts) / 3600, 6),
            "words": sum(len(text.split()) for text in self.sentences()),
            "speakers": len(self.speakers()),
            "dropped": self.dropped,
            "mapped_words": dict(self.mapped_words),
            "unknown_words": dict(self.unknown_words),
            "normalised_transcripts": self.normalised,
        }


def read_words(lexicon: str | Path | dict[str, str]) -> set[str]:
    """The words of a pronunciation file (the first token of each line) or of a mapping. Raises DataError where the file is missing."""
    if isinstance(lexicon, dict):
        return {str(word) for word in lexicon}
    try:
        lines = read_lines(Path(lexicon))
    except FileNotFoundError:
        raise DataError(f"lang.lexicon: {lexicon}: no such file. Expected lines `WORD PHONE PHONE …`; correct the path.") from None
    return {line.split()[0] for line in lines if line.strip()}


def _check_unique(ids: Iterable[str], what: str, split: str) -> set[str]:
    counts = Counter(ids)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{split}: the {what} id '{twice[0]}' stands {counts[twice[0]]} times, expected once. Make the ids unique.")
    return set(counts)


def _check_supervision(split: str, supervision: SupervisionSegment, recordings: dict[str, Any]) -> None:
    recording = recordings.get(supervision.recording_id)
    where = f"{split}: utterance '{supervision.id}'"
    if recording is None:
        raise DataError(
            f"{where}: its recording '{supervision.recording_id}' is not among the {len(recordings)} recordings. Add it or "
            "remove the utterance."
        )
    if supervision.channel not in recording.channel_ids:
        raise DataError(
            f"{where}: expected a channel of {recording.channel_ids} (recording '{recording.id}'), found {supervision.channel}. Correct it."
        )
    inside = supervision.start >= 0 and supervision.end <= recording.duration + _TOLERANCE  # false for what is no number
    if not inside or supervision.duration < _SHORTEST:
        raise DataError(
            f"{where}: expected a time within 0 to {recording.duration:.3f} s (recording '{recording.id}') of at least {_SHORTEST} s, "
            f"found {supervision.start:.3f} to {supervision.end:.3f} s. Correct or remove the segment."
        )


def _cut(supervision: SupervisionSegment, recording: Any) -> MonoCut:
    from lhotse import MonoCut

    duration = min(supervision.duration, recording.duration - supervision.start)
    inside = supervision.with_offset(-supervision.start)
    inside.duration = duration
    return MonoCut(supervision.id, supervision.start, duration, supervision.channel, supervisions=[inside], recording=recording)


def check_split(
    name: str,
    recordings: RecordingSet,
    supervisions: SupervisionSet,
    corpus: CorpusConfig,
    words: set[str] | None,
    unknown_word: str,
    nj: int,
) -> Split:
    """Check one split and make its cuts, one per supervision, with transcripts normalised by `corpus.text`.

    `words` is the lexicon's vocabulary, None where no lexicon is known yet. Utterances with an empty transcript or a word outside the
    lexicon are refused, dropped or mapped as `corpus` says; what is spoken in dev and the tests is never changed, nor left out for a
    word. Raises DataError naming the id, what was expected and found, and the remedy.
    """
    _check_unique((recording.id for recording in recordings), "recording", name)
    _check_unique((supervision.id for supervision in supervisions), "utterance", name)
    by_id = {recording.id: recording for recording in recordings}
    segments = sorted(supervisions, key=lambda supervision: supervision.id)
    for supervision in segments:
        _check_supervision(name, supervision, by_id)
    silent = sorted(set(by_id) - {supervision.recording_id for supervision in segments})
    if silent:
        raise DataError(
            f"{name}: the recording '{silent[0]}' has no transcript ({len(silent)} such recordings). Add it or remove the recording."
        )
    check_audio(recordings, corpus.sample_rate, nj, corpus.resample)
    if corpus.resample:
        by_id = {id_: recording.resample(corpus.sample_rate) for id_, recording in by_id.items()}
    split = Split(name, seen=len(segments))
    normalise = Normaliser(corpus.text)
    for supervision in segments:
        written = " ".join((supervision.text or "").split())
        supervision.text = normalise(written)
        split.normalised += supervision.text != written
        reason = _transcript_fault(split, supervision, corpus, words, unknown_word)
        if reason is not None:
            split.dropped.append({"id": supervision.id, "reason": reason})
            continue
        if supervision.speaker is None and corpus.one_speaker:
            supervision.speaker = corpus.name
        if not supervision.speaker:
            raise DataError(
                f"{name}: utterance '{supervision.id}': expected a speaker, found none. Name the speakers; "
                "where the corpus has a single one, set corpus.one_speaker: true."
            )
        split.cuts.append(_cut(supervision, by_id[supervision.recording_id]))
    _check_share(split, corpus.max_dropped)
    if not split.cuts:
        raise DataError(f"{name}: expected utterances, found none of {split.seen} that can be used. Check the corpus and its options.")
    return split


def _transcript_fault(
    split: Split, supervision: SupervisionSegment, corpus: CorpusConfig, words: set[str] | None, unknown_word: str
) -> str | None:
    """Apply the policies to one transcript, in place. Returns the reason to drop the utterance, or None."""
    found = (supervision.text or "").split()
    where = f"{split.name}: utterance '{supervision.id}'"
    if not found:
        if corpus.empty_transcripts == "drop":
            return "empty transcript"
        raise DataError(f"{where}: expected words, found an empty transcript. Add it, or set corpus.empty_transcripts: drop.")
    unknown = [word for word in found if words is not None and word not in words]
    if unknown and corpus.unknown_words == "error":
        raise DataError(
            f"{where}: the word '{unknown[0]}' is not among the {len(words or ())} words of the lexicon. Add its pronunciation "
            "(lang.lexicon), or set corpus.unknown_words to map or drop."
        )
    if split.name != "train":
        # References are what was spoken: a word that nothing can recognise is an error of the recogniser, not of the test.
        split.unknown_words.update(unknown)
        return None
    if unknown and corpus.unknown_words == "drop":
        return f"the word '{unknown[0]}' is not in the lexicon"
    split.mapped_words.update(unknown)
    supervision.text = " ".join(unknown_word if words is not None and word not in words else word for word in found)
    return None


def _check_share(split: Split, largest: float, remedy: str = "Correct the transcripts or the lexicon.") -> None:
    share = len(split.dropped) / max(split.seen, 1)
    if share > largest:
        first = split.dropped[0]
        raise DataError(
            f"{split.name}: {len(split.dropped)} of {split.seen} utterances ({100 * share:.1f} %) would be dropped, expected at most "
            f"{100 * largest:.1f} % (corpus.max_dropped). The first is '{first['id']}': {first['reason']}. {remedy}"
        )


def model_frames(duration: float, frame_shift: float, subsampling: int = 1) -> int:
    """Frames at which a net is evaluated: those of `duration` seconds of audio, one per `frame_shift`, or the first and then every
    `subsampling`-th of them."""
    frames = int(duration / frame_shift + 0.5)
    return -(-frames // subsampling)


def with_frames(cuts: Iterable[MonoCut], frame_shift: float, subsampling: int = 1) -> Iterator[tuple[str, list[str], int]]:
    """`(id, words, model frames)` of cuts with one supervision each: what `too_short` reads."""
    for cut in cuts:
        yield cut.id, (cut.supervisions[0].text or "").split(), model_frames(cut.duration, frame_shift, subsampling)


def too_short(
    name: str, utterances: Iterable[tuple[str, Sequence[str], int]], needed: Callable[[Sequence[str]], int], corpus: CorpusConfig
) -> list[dict[str, str]]:
    """The utterances with fewer model frames than their transcript needs, as `[{"id": …, "reason": …}]`, under the drop policy.

    `utterances` are `(id, words, model frames)`: of cuts through `with_frames`, of a frame store
    `zip(store.ids, store.texts, -(-np.diff(store.offsets) // subsampling))`. `needed` gives the least number of frames for a list of
    words; with connectionist temporal classification that is the number of tokens, and one more for each token that repeats the one
    before it, as a blank must lie between them (Graves et al., 2006). `name` is the split, for messages.

    Raises DataError for the first such utterance where `corpus.too_short` is `error`, and where they are more than the share
    `corpus.max_dropped` of all utterances, or all of them.
    """
    split = Split(name, seen=0)
    for id_, words, found in utterances:
        split.seen += 1
        expected = needed(words)
        if found >= expected:
            continue
        reason = f"{found} model frames for a transcript that needs {expected}"
        if corpus.too_short == "error":
            raise DataError(
                f"{name}: utterance '{id_}': {reason}. Correct the transcript or the segment, lower the frame subsampling, use larger "
                "units, or set corpus.too_short: drop."
            )
        split.dropped.append({"id": id_, "reason": reason})
    _check_share(split, corpus.max_dropped, "Lower the frame subsampling, use larger units, or correct the transcripts.")
    if split.seen and len(split.dropped) == split.seen:
        raise DataError(f"{name}: all {split.seen} utterances are too short for their transcripts. Lower the frame subsampling.")
    return split.dropped


def check_splits(splits: list[Split], one_speaker: bool) -> None:
    """Raise DataError where two splits share an utterance, or a speaker in a corpus that does not declare `one_speaker`.

    Two test sets may share speakers: the same test in other conditions. None may share one with train or dev.
    """
    for first, second in combinations(splits, 2):
        speakers = sorted(set(first.speakers()) & set(second.speakers()))
        both_tests = not {first.name, second.name} & {"train", "dev"}
        if speakers and not one_speaker and not both_tests:
            speaker = speakers[0]
            raise DataError(
                f"the speaker '{speaker}' stands in {first.name} (utterance '{first.speakers()[speaker]}') and in {second.name} "
                f"(utterance '{second.speakers()[speaker]}'), expected in one of them. Split the corpus by speaker."
            )
        shared = sorted({cut.id for cut in first.cuts} & {cut.id for cut in second.cuts})
        if shared:
            raise DataError(
                f"the utterance id '{shared[0]}' stands in {first.name} and in {second.name}, expected in one of them. Remove it from one."
            )
    everyone = sorted({speaker for split in splits for speaker in split.speakers()})
    if one_speaker and len(everyone) > 1:
        raise DataError(
            f"corpus.one_speaker is true, but {len(everyone)} speakers were found ('{everyone[0]}', '{everyone[1]}', …). "
            "Set it to false, and split the corpus by speaker."
        )
