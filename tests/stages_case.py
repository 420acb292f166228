"""An experiment whose stages are replaced by ones that only write their outputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dropasr import stamps as stamps_module
from dropasr.cli import main
from dropasr.config import Config, load_config, system_folder
from dropasr.paths import Paths
from dropasr.stages import STAGES
from dropasr.stamps import Stamps


def replace_stages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Verbs of the stages that really ran, with a + where one did the work of the next, too; each writes the outputs that it declares."""
    verbs: list[str] = []

    class FakeModule:
        def __init__(self, module: str) -> None:
            self.module = module

        def __getattr__(self, function: str) -> Callable[[Config, Paths, int], None]:
            called = f"{self.module}:{function}"
            stage = next(stage for stage in STAGES if called in (stage.function, stage.ahead))

            def work(config: Config, paths: Paths, nj: int) -> None:
                verbs.append(stage.verb if called == stage.function else f"{stage.verb}+")
                for output in stage.outputs(config, paths):
                    path = output if output.suffix else output / "file.txt"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text("made", encoding="utf-8")

            return work

    monkeypatch.setattr(stamps_module, "importlib", type("FakeImportlib", (), {"import_module": FakeModule, "util": importlib.util}))
    return verbs


class Experiment:
    """A small experiment in a temporary folder."""

    def __init__(self, yaml: Path, folder: Path) -> None:
        self.yaml = yaml
        self.folder = folder

    def stamps(self, *settings: str, seed: int = 1) -> Stamps:
        config = load_config(self.yaml, settings=list(settings))
        return Stamps(config, Paths(self.folder / "data", self.folder / "exp", "feedforward", seed, system_folder(config)))

    def to_do(self, *settings: str, seed: int = 1) -> list[int]:
        stamps = self.stamps(*settings, seed=seed)
        return [stage.number for stage in STAGES if stamps.reason_to_run(stage) is not None]

    def run(self, *settings: str) -> None:
        stamps = self.stamps(*settings)
        for stage in STAGES:
            if stamps.reason_to_run(stage) is not None:
                stamps.run(stage, nj=1)


def command(experiment: Experiment, verb: str, *argv: str) -> int:
    folders = ["--exp-dir", str(experiment.folder / "exp"), "--data-dir", str(experiment.folder / "data")]
    return main([verb, "--conf", str(experiment.yaml), *folders, *argv])
