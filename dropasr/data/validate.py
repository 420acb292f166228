"""Checks of manifests, audio and transcripts before anything is computed from them. Every check raises DataError, none asserts."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropasr.config import CorpusConfig
from dropasr.errors import DataError
from dropasr.log import progress

if TYPE_CHECKING:
    from lhotse import MonoCut, RecordingSet, SupervisionSegment, SupervisionSet

_TOLERANCE = 0.001
"""Seconds by which a supervision may pass the end of its recording: manifests round times to milliseconds."""
_STREAMED = 0x7FFFF000
"""WAV headers written to a pipe declare a length of zero, or this or more: the true one was not known."""
_BLOCK = 1 << 20
_FEW = 400
"""Recordings below which starting processes costs more than it saves."""


@dataclass
class Split:
    """What is left of one split: its cuts, sorted by id, and what was dropped or changed."""

    name: str
    seen: int
    cuts: list[MonoCut] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    mapped_words: Counter[str] = field(default_factory=Counter)

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
        }


def read_words(lexicon: str | Path | dict[str, str]) -> set[str]:
    """The words of a pronunciation file (the first token of each line) or of a mapping. Raises DataError where the file is missing."""
    if isinstance(lexicon, dict):
        return {str(word) for word in lexicon}
    try:
        lines = Path(lexicon).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"lang.lexicon: {lexicon}: no such file. Expected lines `WORD PHONE PHONE …`; correct the path.") from None
    return {line.split()[0] for line in lines if line.strip()}


def declared_wav_samples(path: Path) -> int | None:
    """Samples per channel that the header of a WAV file declares; None for other formats and for streamed files."""
    with open(path, "rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return None
        block_align = 0
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                return None if size == 0 or size >= _STREAMED or block_align == 0 else size // block_align
            content = file.read(size + size % 2)
            if name == b"fmt " and len(content) >= 14:
                block_align = struct.unpack("<H", content[12:14])[0]
    return None


def _audio_fault(task: tuple[str, str, int, int, int]) -> str | None:
    """What is wrong with one recording, or None. The whole file is read."""
    import soundfile

    recording, path, manifest_rate, manifest_samples, corpus_rate = task
    where = f"{path} (recording '{recording}')"
    if not Path(path).is_file():
        return f"{where}: expected an audio file, found none. Restore the file, or remove the recording from the corpus."
    try:
        declared = declared_wav_samples(Path(path))
        with soundfile.SoundFile(path) as file:
            rate, in_header, found = file.samplerate, file.frames, 0
            while len(block := file.read(_BLOCK, dtype="int16")):
                found += len(block)
    except (RuntimeError, OSError) as error:
        return f"{where}: expected readable audio, found a file that cannot be decoded ({error}). Replace it by an intact copy."
    if rate != corpus_rate:
        return f"{where}: expected {corpus_rate} Hz (corpus.sample_rate), found {rate} Hz. Resample the corpus or change it."
    if manifest_rate != rate:
        return f"{where}: expected {manifest_rate} Hz as its manifest says, found {rate} Hz. Prepare the corpus again."
    expected = in_header if declared is None else declared
    if found < expected:
        return f"{where}: expected {expected} samples as its header says, found {found}: it is truncated. Replace it by an intact copy."
    if found != manifest_samples:
        return f"{where}: expected {manifest_samples} samples as its manifest says, found {found}. Prepare the corpus again."
    if found == 0:
        return f"{where}: expected speech, found no samples. Replace the file, or remove the recording from the corpus."
    return None


def check_audio(recordings: RecordingSet, sample_rate: int, nj: int) -> None:
    """Read every recording, in `nj` processes. Raises DataError for a missing, unreadable or truncated file, or a wrong sample rate."""
    tasks = []
    for recording in recordings:
        for source in recording.sources:
            if source.type != "file":
                raise DataError(
                    f"recording '{recording.id}': expected a plain file, found a {source.type} ({source.source}). Write it to a file."
                )
            tasks.append((recording.id, str(source.source), recording.sampling_rate, recording.num_samples, sample_rate))
    if nj > 1 and len(tasks) >= _FEW:
        with ProcessPoolExecutor(nj) as pool:
            faults = [fault for fault in progress(pool.map(_audio_fault, tasks, chunksize=64), "reading audio", len(tasks)) if fault]
    else:
        faults = [fault for fault in map(_audio_fault, tasks) if fault]
    if faults:
        raise DataError(faults[0] + (f" {len(faults) - 1} more recordings are at fault." if len(faults) > 1 else ""))


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
    if supervision.duration <= 0 or supervision.start < 0 or supervision.end > recording.duration + _TOLERANCE:
        raise DataError(
            f"{where}: expected a time within 0 to {recording.duration:.3f} s (recording '{recording.id}'), "
            f"found {supervision.start:.3f} to {supervision.end:.3f} s. Correct the segment."
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
    """Check one split and make its cuts, one per supervision.

    `words` is the lexicon's vocabulary, None where no lexicon is known yet. Utterances with an empty transcript or a word outside the
    lexicon are refused, dropped or mapped as `corpus` says. Raises DataError naming the id, what was expected and found, and the remedy.
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
    check_audio(recordings, corpus.sample_rate, nj)
    split = Split(name, seen=len(segments))
    for supervision in segments:
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
    if unknown and corpus.unknown_words == "drop":
        return f"the word '{unknown[0]}' is not in the lexicon"
    split.mapped_words.update(unknown)
    supervision.text = " ".join(unknown_word if words is not None and word not in words else word for word in found)
    return None


def _check_share(split: Split, largest: float) -> None:
    share = len(split.dropped) / max(split.seen, 1)
    if share > largest:
        first = split.dropped[0]
        raise DataError(
            f"{split.name}: {len(split.dropped)} of {split.seen} utterances ({100 * share:.1f} %) would be dropped, expected at most "
            f"{100 * largest:.1f} % (corpus.max_dropped). The first is '{first['id']}': {first['reason']}. Correct the transcripts or "
            "the lexicon."
        )
    if not split.cuts:
        raise DataError(
            f"{split.name}: expected utterances, found none of {split.seen} that can be used. Check the corpus and its options."
        )


def check_splits(splits: list[Split], one_speaker: bool) -> None:
    """Raise DataError where two splits share an utterance, or a speaker in a corpus that does not declare `one_speaker`."""
    for first, second in combinations(splits, 2):
        speakers = sorted(set(first.speakers()) & set(second.speakers()))
        if speakers and not one_speaker:
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
