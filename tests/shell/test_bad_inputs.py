"""Bad data at the command line: one paragraph that names the id and the remedy, a non-zero exit code, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

CONF = """\
corpus: {{name: bad, prepare: local/prepare_kaldi_dir.py, sample_rate: 16000, options: {{train: {0}/train, dev: {0}/dev, test: {0}/test}}}}
lang: {{lexicon: {{HELLO: HH L OW, WORLD: W ER L D}}}}
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three Kaldi directories with two utterances each, and a configuration."""
    rng = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        folder = tmp_path / split
        folder.mkdir()
        tables = {"wav.scp": "", "text": "", "utt2spk": ""}
        for index in (1, 2):
            id_ = f"{split}{index}"
            wav = folder / f"{id_}.wav"
            soundfile.write(wav, 0.1 * rng.standard_normal(16000), 16000, subtype="PCM_16")
            tables["wav.scp"] += f"{id_} {wav}\n"
            tables["text"] += f"{id_} HELLO WORLD\n"
            tables["utt2spk"] += f"{id_} {split}-speaker\n"
        for name, text in tables.items():
            (folder / name).write_text(text)
    (tmp_path / "bad.yaml").write_text(CONF.format(tmp_path))
    return tmp_path


def run_data(folder: Path, *extra: str) -> subprocess.CompletedProcess:
    options = ["--conf", str(folder / "bad.yaml"), "--data-dir", str(folder / "data"), "--exp-dir", str(folder / "exp"), "--nj", "1"]
    return subprocess.run([sys.executable, "-m", "dropasr", "data", *options, *extra], capture_output=True, text=True)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def missing(folder: Path) -> None:
    (folder / "test" / "test2.wav").unlink()


def truncated(folder: Path) -> None:
    path = folder / "test" / "test2.wav"
    path.write_bytes(path.read_bytes()[:-8000])


def wrong_rate(folder: Path) -> None:
    soundfile.write(folder / "test" / "test2.wav", np.zeros(8000), 8000, subtype="PCM_16")


def unknown_word(folder: Path) -> None:
    edit(folder / "test" / "text", "test2 HELLO WORLD", "test2 HELLO WELT")


def empty_transcript(folder: Path) -> None:
    edit(folder / "test" / "text", "test2 HELLO WORLD", "test2")


def shared_speaker(folder: Path) -> None:
    edit(folder / "test" / "utt2spk", "test-speaker", "train-speaker")


@pytest.mark.parametrize(
    "defect,words",
    [
        (missing, ["test2"]),
        (truncated, ["test2"]),
        (wrong_rate, ["test2", "8000", "16000"]),
        (unknown_word, ["test2", "WELT", "unknown_words"]),
        (empty_transcript, ["test2", "empty"]),
        (shared_speaker, ["train-speaker"]),
    ],
)
def test_defects_of_the_data(corpus, defect, words):
    defect(corpus)
    result = run_data(corpus)
    assert result.returncode == 1, result.stdout
    assert result.stderr.startswith("error: ") and result.stderr.strip().count("\n") == 0, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert not (corpus / "data" / "stamps").exists() or not list((corpus / "data" / "stamps").glob("*.json"))


def test_the_same_corpus_without_defects_passes(corpus):
    result = run_data(corpus)
    assert result.returncode == 0, result.stderr
    assert "already done" in run_data(corpus).stdout


def test_misspelt_key(corpus):
    with open(corpus / "bad.yaml", "a", encoding="utf-8") as file:
        file.write("decode: {bema: 3}\n")
    result = run_data(corpus)
    assert result.returncode == 2 and "decode.bema" in result.stderr and "did you mean 'beam'" in result.stderr
