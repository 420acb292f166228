"""A decoded experiment in small, its nets exported, and audio that stands for the frames of its store."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from dropasr.data.store import FrameStore
from dropasr.runtime.export import export
from dropasr.runtime.timing import Audio

for folder in ("training", "runtime"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / folder))
from test_evaluate import Experiment  # noqa: E402 (the folder beside is on the path only now)


class Exported:
    """An experiment whose large nets lie in `folders`, by row."""

    def __init__(self, folder: Path, yaml: Path) -> None:
        self.experiment = Experiment(folder, yaml)
        self.experiment.decode()
        self.config, self.paths = self.experiment.config("rtf.utterances=5", "rtf.repeats=2"), self.experiment.paths
        self.folders = [folder / "nets" / row for row in ("dense", "annealed_dropout")]
        for path in self.folders:
            export(self.config, self.paths, path.name, path)

    def store(self, split: str = "test") -> FrameStore:
        return FrameStore.open(self.paths.features(split))

    def without_audio(self, monkeypatch: pytest.MonkeyPatch, *modules: object) -> None:
        """Utterances of the store in place of audio in these modules, and no waiting for an idle machine."""

        def load_audio(config, paths, split="test"):
            store = self.store(split)
            return [Audio(store.ids[i], np.zeros(1, np.float32), store.durations[i]) for i in range(config.rtf.utterances)]

        def features(config):
            stores = [self.store(split) for split in ("dev", "test")]
            return lambda audio: next(store.utterance(audio.id) for store in stores if audio.id in store.ids)

        for module in modules:
            monkeypatch.setattr(module, "load_audio", load_audio)
            monkeypatch.setattr(module, "feature_extractor", features)
            monkeypatch.setattr(module, "check_load", lambda under_load: 0.0)
