"""Kaldi data directories, one per split; the development set may be speakers of the training directory."""

from __future__ import annotations

from pathlib import Path
from typing import Union

from pydantic import Field, model_validator

from dropasr.config import REPOSITORY, CorpusConfig, Options
from dropasr.data import kaldi_dir
from dropasr.errors import DataError


class PrepareOptions(Options):
    """Where the directories of the splits lie."""

    train: str = "train"
    """Directory of the training set; relative to corpus.corpus_dir, or else as other paths (to the caller's folder in `--set`, to the
    repository in a YAML)."""
    dev: Union[str, None] = "dev"
    """Directory of the development set; null: speakers of the training directory, by `dev_speakers` or `dev_every`."""
    test: str = "test"
    """Directory of the test set."""
    extra: dict[str, str] = {}
    """Directory of each of `corpus.extra_tests`, relative to corpus.corpus_dir or else to the repository; without an entry, its name."""
    dev_speakers: list[str] = []
    """Speakers of the training directory that go to the development set."""
    dev_every: int = Field(default=0, ge=0)
    """Every n-th speaker of the training directory, in the order of their names, goes to the development set."""

    @model_validator(mode="after")
    def _check(self) -> PrepareOptions:
        ways = [name for name in ("dev", "dev_speakers", "dev_every") if getattr(self, name)]
        if len(ways) != 1 or self.dev_every == 1:
            found = " and ".join(ways) if self.dev_every != 1 else "dev_every 1, which leaves no speaker to train on"
            raise ValueError(f"expected one of dev, dev_speakers and dev_every (2 or more), found {found or 'none'}")
        return self


def _held_out(corpus: CorpusConfig, options: PrepareOptions, speakers: list[str]) -> set[str]:
    """The development speakers among the sorted `speakers` of the training directory."""
    chosen = options.dev_speakers or speakers[options.dev_every - 1 :: options.dev_every]
    unknown = sorted(set(chosen) - set(speakers))
    if unknown or not 0 < len(chosen) < len(speakers):
        found = f"'{unknown[0]}', which is none" if unknown else f"{len(chosen)}"
        raise DataError(
            f"corpus {corpus.name}: expected some of the {len(speakers)} speakers of '{options.train}' for dev, found {found}. Correct "
            "corpus.options.dev_speakers or dev_every."
        )
    return set(chosen)


def prepare(corpus: CorpusConfig, options: PrepareOptions, folder: Path, nj: int):  # noqa: ANN201 - lhotse is imported late
    """Read the directories: `{split: (RecordingSet, SupervisionSet)}`. Raises DataError as `dropasr.data.kaldi_dir.load` does."""
    from lhotse import RecordingSet, SupervisionSet

    root = Path(corpus.corpus_dir or REPOSITORY).expanduser()
    places = {"train": options.train, "dev": options.dev, "test": options.test}
    places.update({name: options.extra.get(name, name) for name in corpus.extra_tests})
    result = {split: kaldi_dir.load(root / Path(place).expanduser()) for split, place in places.items() if place is not None}
    if options.dev is None:
        recordings, supervisions = result["train"]
        held_out = _held_out(corpus, options, sorted({item.speaker for item in supervisions}))
        for split, in_dev in (("dev", True), ("train", False)):
            chosen = [item for item in supervisions if (item.speaker in held_out) == in_dev]
            used = {item.recording_id for item in chosen}
            kept = [recording for recording in recordings if recording.id in used]
            result[split] = RecordingSet.from_recordings(kept), SupervisionSet.from_segments(chosen)
    return result
