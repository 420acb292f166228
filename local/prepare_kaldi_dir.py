"""Kaldi data directories, one per split."""

from __future__ import annotations

from pathlib import Path

from dropasr.config import REPOSITORY, CorpusConfig, Options
from dropasr.data import kaldi_dir


class PrepareOptions(Options):
    """Where the directories of the three splits lie."""

    train: str = "train"
    """Directory of the training set; relative to corpus.corpus_dir, or else as other paths (to the caller's folder in `--set`, to the
    repository in a YAML)."""
    dev: str = "dev"
    """Directory of the development set."""
    test: str = "test"
    """Directory of the test set."""


def prepare(corpus: CorpusConfig, options: PrepareOptions, folder: Path, nj: int):  # noqa: ANN201 - lhotse is imported late
    """Read the three directories: `{split: (RecordingSet, SupervisionSet)}`. Raises DataError as `dropasr.data.kaldi_dir.load` does."""
    root = Path(corpus.corpus_dir or REPOSITORY).expanduser()
    return {split: kaldi_dir.load(root / Path(getattr(options, split)).expanduser()) for split in ("train", "dev", "test")}
