"""A package of a net that was trained on real speech, in an environment with the runtime extra alone. Slow."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_recipes import REPOSITORY, common, run_sh

from dropasr.data.store import FrameStore

pytestmark = pytest.mark.slow

SETTINGS = (
    "model.layers=2",
    "model.width=96",
    "train.epochs=3",
    "experiment.large=[dense]",
    "experiment.small=[]",
    "experiment.compact=[]",
    "align.gaussian_rounds=5",
    "align.net_rounds=1",
    "align.width=64",
    "align.epochs=1",
    "features.prior_frames=300",
    # As transcription has them: frames that were not rounded, and the search of the package.
    "features.dtype=float32",
    "decode.backend=kaldi",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, corpora) -> Path:
    """The folder of a small experiment on fsdd with a package of its net."""
    folder = tmp_path_factory.mktemp("fsdd")
    options = ["--conf", "conf/fsdd.yaml", "--corpus-dir", str(corpora / "free-spoken-digit-dataset"), *common(folder, *SETTINGS)]
    run_sh(*options, "--stop-stage", "7")
    command = [sys.executable, "-m", "dropasr", "package", "dense", str(folder / "package"), *options]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The programs of a fresh environment that has the toolkit with its runtime extra, installed from a copy of the sources."""
    folder = tmp_path_factory.mktemp("environment")
    shutil.copytree(REPOSITORY / "dropasr", folder / "source" / "dropasr", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder / "source")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    programs = folder / "venv" / "bin"
    subprocess.run([str(programs / "pip"), "install", "-q", f"{folder / 'source'}[runtime]"], check=True)
    return programs


def run(program: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DROPASR_CALLER_DIR")}
    return subprocess.run([str(program), *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def hypotheses(alignments: Path) -> dict[str, list[str]]:
    """What stage 7 found, by utterance."""
    found, name = {}, ""
    for line in alignments.read_text(encoding="utf-8").splitlines():
        head = re.match(r"(\S+): \d+ words", line)
        name = head[1] if head else name
        if line.startswith("HYP:"):
            found[name] = [word for word in line.split()[1:] if set(word) != {"*"}]
    return found


def test_the_runtime_environment_says_what_the_training_environment_says(trained, installed, tmp_path):
    modules = "torch", "k2", "lhotse", "pydantic", "yaml"
    absent = f"import importlib.util as u; assert not any(map(u.find_spec, {modules}))"
    assert run(installed / "python", "-c", absent, folder=tmp_path).returncode == 0
    store = FrameStore.open(trained / "data" / "features" / "test")
    expected = hypotheses(trained / "exp" / "feedforward" / "seed1" / "scores" / "dense.alignments.txt")
    assert set(expected) == set(store.ids) and len(expected) == 201
    different, words = [], 0
    for speaker in sorted(set(store.speakers)):
        folder = tmp_path / speaker
        folder.mkdir()
        for name, own in zip(store.ids, store.speakers):
            if own == speaker:
                (folder / f"{name}.wav").symlink_to(trained / "data" / "corpus" / "connected" / f"{name}.wav")
        arguments = ["transcribe", speaker, "--one-speaker", "--package", str(trained / "package"), "--format", "json"]
        result = run(installed / "dropasr", *arguments, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        for line in result.stdout.splitlines():
            value = json.loads(line)
            name = Path(value["file"]).stem
            words += len(value["words"])
            different += [name] if value["text"].split() != expected.pop(name) else []
    assert not expected and words > 900
    assert different == []


MINUTES = 40


def test_memory_does_not_grow_with_the_length_of_a_recording(trained, tmp_path):
    """Forty minutes of digits at 16 kHz in stereo, against two."""
    names = sorted((trained / "data" / "corpus" / "connected").glob("theo*.wav"))[:30]
    speech = np.concatenate([soundfile.read(name, dtype="float32")[0] for name in names])
    speech = np.repeat(speech, 2)[: 16000 * 60]  # a minute at 16 kHz
    for minutes, name in ((2, "short.flac"), (MINUTES, "long.flac")):
        with soundfile.SoundFile(tmp_path / name, "w", 16000, 2) as file:
            for _ in range(minutes):
                file.write(np.stack([speech, speech], axis=1))
    peaks, counts = [], []
    for name in ("short.flac", "long.flac"):
        code = "import resource, sys; from dropasr.cli import main; code = main(sys.argv[1:]); "
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
        arguments = ["transcribe", name, "--package", str(trained / "package"), "--format", "ctm"]
        command = [sys.executable, "-c", code, *arguments]
        result = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stderr.split()[-1]) / 1024)
        counts.append(len(result.stdout.splitlines()))
    assert peaks[1] < peaks[0] + 25, f"peak resident memory in MiB: {peaks}"
    # As many words per minute, wherever it was cut.
    assert counts[1] == pytest.approx(counts[0] * MINUTES / 2, rel=0.05)
