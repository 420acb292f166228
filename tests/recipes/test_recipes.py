"""Whole recipes through run.sh: every stage on a small corpus, a range for the WER, exact unit counts. Slow."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import soundfile
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run_sh(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    result = subprocess.run(["bash", str(REPOSITORY / "run.sh"), *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    if check:
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def common(folder: Path, *settings: str) -> list[str]:
    places = ["--data-dir", str(folder / "data"), "--exp-dir", str(folder / "exp"), "--nj", "2"]
    return places + [part for setting in settings for part in ("--set", setting)]


def results(folder: Path, system: str = "") -> dict[str, dict]:
    found = json.loads((folder / "exp" / "feedforward" / "seed1" / system / "results.json").read_text())
    return {row["name"]: row for row in found["rows"]}


def test_synthetic_corpus_through_all_stages(tmp_path):
    settings = (
        "corpus.options.train_utterances=240",
        "corpus.options.dev_utterances=30",
        "corpus.options.test_utterances=40",
        "corpus.options.snr_low=3",
        "corpus.options.snr_high=12",
        "corpus.options.reverb_probability=0",
        "model.layers=2",
        "model.width=192",
        "train.epochs=8",
        "train.batch_size=128",
        "train.precision=float32",
        "rtf.utterances=5",
    )
    options = common(tmp_path, *settings)
    output = run_sh(*options).stdout
    rows = results(tmp_path)
    assert set(rows) == {
        "dense",
        "annealed_dropout",
        "small_dense@0.25",
        "dropout_compaction@0.25",
        "small_dense@0.125",
        "dropout_compaction@0.125",
    }
    for row in rows.values():
        assert 2 < row["wer"] < 45, row["name"]
        low, high = row["wer_interval"]
        assert low < row["wer"] < high
        assert row["rtf"]["model"] > 0 and row["rtf"]["total"] == pytest.approx(sum(row["rtf"][k] for k in ("features", "model", "search")))
    # 680-192-192-126 inputs, units, outputs: the widths that come closest to the shares of 191,616 multiply-adds.
    assert rows["dense"]["units"] == [192, 192]
    assert rows["small_dense@0.25"]["units"] == rows["dropout_compaction@0.25"]["units"] == EXPECTED_UNITS["0.25"]
    assert rows["small_dense@0.125"]["units"] == rows["dropout_compaction@0.125"]["units"] == EXPECTED_UNITS["0.125"]
    # The fastest pass of each utterance, because other processes may take the core for several times as long as so small a net needs.
    timed = json.loads((tmp_path / "exp" / "feedforward" / "seed1" / "rtf.json").read_text())["rows"]
    large, small = (sum(map(min, zip(*timed[name]["per_utterance_model_seconds"]))) for name in ("dense", "dropout_compaction@0.125"))
    assert large > 2 * small
    assert "removed units: 192/192 ->" in output
    # A second run does nothing; a later option redoes only what depends on it.
    again = run_sh(*options).stdout
    assert "already done" in again and "(not done yet)" not in again
    changed = run_sh(*options, "--set", "decode.beam=9").stdout
    assert "stage 6 compact: already done" in changed and "stage 7 decode: already done" not in changed
    # A damaged net is refused by name.
    weights = tmp_path / "exp" / "feedforward" / "seed1" / "nets" / "dense" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    damaged = run_sh(*options, "--stage", "7", "--set", "decode.beam=8", check=False)
    assert damaged.returncode == 1 and "model.safetensors" in damaged.stderr and "damaged" in damaged.stderr


EXPECTED_UNITS = {"0.25": [56, 55], "0.125": [29, 28]}


def test_yesno_with_hardly_a_word_wrong(tmp_path, corpora):
    options = common(tmp_path, "model.layers=2", "model.width=256", "rtf.utterances=5")
    run_sh("--conf", "conf/yesno.yaml", "--corpus-dir", str(corpora / "waves_yesno"), *options)
    for row in results(tmp_path).values():
        assert row["wer"] <= 100 * 3 / 240 + 1e-9, row["name"]  # one recording is cut within its last word
    report = (tmp_path / "exp" / "feedforward" / "seed1" / "report" / "report.md").read_text()
    assert "one speaker" in report


def test_fsdd_connected_digits_of_unseen_speakers(tmp_path, corpora):
    options = common(tmp_path, "model.layers=2", "model.width=256", "train.epochs=6", "rtf.utterances=5")
    run_sh("--conf", "conf/fsdd.yaml", "--corpus-dir", str(corpora / "free-spoken-digit-dataset"), *options)
    for row in results(tmp_path).values():
        assert row["wer"] < 30, row["name"]
        assert row["speedup"]["interval"][0] <= row["speedup"]["model"] <= row["speedup"]["interval"][1]


def test_missing_corpus_is_one_paragraph(tmp_path):
    result = run_sh("--conf", "conf/fsdd.yaml", "--corpus-dir", os.fspath(tmp_path / "nowhere"), *common(tmp_path), check=False)
    assert result.returncode in (1, 2) and "nowhere" in result.stderr and "Traceback" not in result.stderr


def cut_librispeech(source: Path, target: Path, seconds: dict[str, dict[str, float]]) -> None:
    """A LibriSpeech of some speakers with so many seconds of each, made of links to the recordings and of shorter transcript files."""
    for part, speakers in seconds.items():
        for speaker, wanted in speakers.items():
            left = wanted
            for transcripts in sorted((source / part / speaker).glob("*/*.trans.txt")):
                folder = target / part / speaker / transcripts.parent.name
                folder.mkdir(parents=True)
                kept = []
                for line in transcripts.read_text(encoding="utf-8").splitlines():
                    recording = transcripts.parent / f"{line.split()[0]}.flac"
                    if left > 0:
                        left -= soundfile.info(recording).duration
                        (folder / recording.name).symlink_to(recording.resolve())
                        kept.append(line + "\n")
                (folder / transcripts.name).write_text("".join(kept), encoding="utf-8")
                if left <= 0:
                    break
            assert left <= 0, f"{part}/{speaker} has no {wanted} seconds"


TEN_MINUTES = {
    "train-clean-5": {
        **dict.fromkeys(["19", "32", "118", "163", "226", "332"], 75.0),
        **dict.fromkeys(["2136", "1898"], 60.0),
    },
    "test-other": {"1688": 20.0},
}


def test_ten_minutes_of_large_vocabulary_speech(tmp_path, corpora):
    cut_librispeech(corpora / "LibriSpeech", tmp_path / "LibriSpeech", TEN_MINUTES)
    text = corpora / "lm-text"
    settings = (
        'corpus.options.dev_speakers=["2136"]',
        'corpus.options.test_speakers=["1898"]',
        f"lang.dictionary={text / 'cmudict.txt'}",
        f"lang.texts=[{text / 'librispeech-train-text.txt.gz'}]",
        "lang.vocabulary=5000",
        "lang.prune_to=[40000,20000]",
        "lang.num_units=160",
        "features.speed_perturb=[0.9,1.1]",
        "model.layers=3",
        "model.width=256",
        "train.batch_size=128",
        "train.epochs=8",
        "train.epoch_share=1",
        "experiment.budgets=[0.25]",
        "rtf.utterances=3",
    )
    options = common(tmp_path, *settings)
    started = time.monotonic()
    run_sh("--conf", "conf/mini_librispeech_reduced.yaml", "--corpus-dir", str(tmp_path / "LibriSpeech"), *options)
    assert time.monotonic() - started < 8 * 60, "too slow for every change"
    rows = results(tmp_path, "systems/every_3rd_frame")
    assert set(rows) == {"dense", "small_dense@0.25", "dropout_compaction@0.25"}
    for row in rows.values():
        # Eight minutes of training speech, a speaker not among them, 5000 words: between a third and four fifths are wrong.
        assert 33 < row["wer"] < 80, row["name"]
        assert set(row["extra"]) == {"test_other", "all"} and row["wer"] < row["extra"]["test_other"]["wer"] + 40
    assert rows["dropout_compaction@0.25"]["units"] == rows["small_dense@0.25"]["units"]
    assert rows["dropout_compaction@0.25"]["speedup"]["model"] > 1.5
    report = json.loads((tmp_path / "exp" / "align" / "report.json").read_text())
    # Some of the 160 classes that were asked for have too few frames in eight minutes.
    assert 120 < report["units"] <= 160 and report["failed"] == []


def test_every_method_stands_in_the_comparison(tmp_path, corpora):
    settings = ("model.layers=2", "model.width=128", "train.epochs=2", "decode.acoustic_scales=[0.03]", "rtf.utterances=3", "rtf.repeats=2")
    overlay = REPOSITORY / "recipes" / "compare" / "smoke.yaml"
    options = [
        "--conf",
        "conf/yesno.yaml",
        "--corpus-dir",
        str(corpora / "waves_yesno"),
        "--with",
        str(overlay),
        *common(tmp_path, *settings),
    ]
    command = ["bash", str(REPOSITORY / "local" / "recipe.sh"), str(tmp_path / "recipe"), *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "SEEDS": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lists = yaml.safe_load((overlay.parent / "methods.yaml").read_text())["experiment"]
    found = {row["name"]: row for row in json.loads((tmp_path / "recipe" / "results.json").read_text())["rows"]}
    free = [name for name in lists["compact"] if name.endswith("_published")]
    expected = {*lists["large"], *free, *(f"small_{name}@0.125" for name in lists["small"])}
    assert set(found) == expected | {f"{name}@0.125" for name in lists["compact"] if name not in free}
    share = {name: row["macs_per_second"] / found["dense"]["macs_per_second"] for name, row in found.items()}
    assert all(abs(share[name] / 0.125 - 1) <= 0.02 for name in found if name.endswith("@0.125")), share
    text = (tmp_path / "recipe" / "RESULTS.md").read_text()
    assert text.split("\n\n")[1].startswith("**Smoke: one seed, one budget") and "dropout compaction has place" in text
