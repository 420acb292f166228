"""The command: what it prints, what it refuses, and what it must not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import REPOSITORY

from dropasr.cli import main

sys.path.insert(0, str(Path(__file__).parent / "runtime"))
from package_case import RATE, speech, write_package, write_speech  # noqa: E402


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return str(write_package(tmp_path_factory.mktemp("package") / "tones"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with audio, and files that are none; the current one."""
    write_speech(tmp_path / "a.wav", ["LOW", "HIGH"])
    write_speech(tmp_path / "b two.flac", ["HIGH"], rate=16000)
    (tmp_path / "notes.txt").write_text("nothing to hear\n")
    (tmp_path / "below").mkdir()
    write_speech(tmp_path / "below" / "c.wav", ["LOW"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def transcribe(capsys, *arguments: str) -> tuple[int, list[str], str]:
    code = main(["transcribe", *arguments])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_plain_text(folder, package, capsys):
    assert transcribe(capsys, "a.wav", "--package", package) == (0, ["LOW HIGH"], "")
    code, lines, said = transcribe(capsys, "a.wav", "b two.flac", "--package", package)
    assert (code, lines) == (0, ["a.wav\tLOW HIGH", "b two.flac\tHIGH"])
    assert said == "note: b two.flac: resampled from 16000 to 8000 Hz\n"


def test_json_and_ctm(folder, package, capsys):
    _, lines, _ = transcribe(capsys, "a.wav", "--package", package, "--format", "json")
    value = json.loads(lines[0])
    assert value["file"] == "a.wav" and value["text"] == "LOW HIGH" and value["seconds"] == pytest.approx(1.7)
    word = value["words"][1]
    assert word["text"] == "HIGH" and abs(word["start"] - 1.0) < 0.03 and abs(word["end"] - 1.4) < 0.03 and 0 < word["confidence"] <= 1
    _, lines, _ = transcribe(capsys, "b two.flac", "--package", package, "--format=ctm")
    name, channel, start, duration, text, confidence = lines[0].split(" ")
    assert (name, channel, text) == ("b_two", "1", "HIGH") and abs(float(start) - 0.3) < 0.03 and abs(float(duration) - 0.4) < 0.04
    assert 0 < float(confidence) <= 1


def test_folders(folder, package, capsys):
    assert transcribe(capsys, ".", "--package", package)[1] == ["a.wav\tLOW HIGH", "b two.flac\tHIGH"]
    code, lines, _ = transcribe(capsys, str(folder), "--recursive", "--package", package)
    assert code == 0 and [line.partition("\t")[2] for line in lines] == ["LOW HIGH", "HIGH", "LOW"]
    (folder / "empty").mkdir()
    code, lines, said = transcribe(capsys, "empty", "a.wav", "--package", package)
    assert (code, lines) == (1, ["a.wav\tLOW HIGH"]) and "error: empty: expected audio files in this folder, found none" in said


def test_files_at_fault_are_named_and_the_others_transcribed(folder, package, capsys):
    whole = (folder / "a.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:-2000])
    (folder / "empty.wav").touch()
    soundfile.write(folder / "stereo.wav", np.stack([speech(["LOW"])[0]] * 2, axis=1), RATE)
    names = ["notes.txt", "cut.wav", "empty.wav", "missing.wav", "stereo.wav", "a.wav"]
    code, lines, said = transcribe(capsys, *names, "--package", package, "--format", "json")
    values = [json.loads(line) for line in lines]
    assert code == 1 and [value["file"] for value in values] == names
    assert [value.get("text") for value in values] == [None] * 4 + ["LOW", "LOW HIGH"]
    for name, reason in (("notes.txt", "(text)"), ("cut.wav", "truncated"), ("empty.wav", "empty"), ("missing.wav", "no such file")):
        assert any(line.startswith("error: ") and name in line and reason in line for line in said.splitlines()), name
    assert "stereo.wav: the mean of 2 channels" in said and "4 of 6 files could not be transcribed" in said


def test_what_the_system_refuses_is_told_and_the_others_transcribed(folder, package, capsys):
    odd, long = os.fsdecode(b"caf\xe9.wav"), "x" * 300 + ".wav"
    (folder / odd).write_bytes((folder / "a.wav").read_bytes())
    command = [sys.executable, "-m", "dropasr", "transcribe", long, odd, "a.wav", "--package", package]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 1 and [line.partition(b"\t")[2] for line in done.stdout.splitlines()] == [b"LOW HIGH"] * 2
    assert f"error: {long}: it cannot be read (File name too long)" in done.stderr.decode()
    assert b"1 of 3 files could not be transcribed" in done.stderr and b"Traceback" not in done.stderr


def test_streams(folder, package, capsys):
    code, lines, _ = transcribe(capsys, "a.wav", "--stream", "--package", package, "--format", "json")
    values = [json.loads(line) for line in lines]
    assert code == 0 and [value["final"] for value in values][-1] and " ".join(v["text"] for v in values if v["final"]) == "LOW HIGH"
    assert transcribe(capsys, "a.wav", "--stream", "--package", package)[1] == ["LOW HIGH"]
    said = transcribe(capsys, "a.wav", "b two.flac", "--stream", "--package", package)[1]
    assert [line.partition("\t")[0] for line in said] == ["a.wav", "b two.flac"]
    samples, rate = soundfile.read("a.wav")
    soundfile.write("stereo.wav", np.stack([0 * samples, samples], axis=1), rate)
    lines = transcribe(capsys, "stereo.wav", "--stream", "--channel", "1", "--package", package, "--format", "ctm")[1]
    assert [line.split(" ")[:2] for line in lines] == [["stereo", "2"]] * 2


def test_one_speaker(folder, package, capsys):
    assert transcribe(capsys, ".", "--one-speaker", "--package", package)[1] == ["a.wav\tLOW HIGH", "b two.flac\tHIGH"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav"], "option '--package' is missing"),
        (["--package", "x"], "the files to transcribe are missing"),
        (["a.wav", "--pakage", "x"], "did you mean '--package'"),
        (["a.wav", "--package", "x", "--format", "srt"], "expected text, json or ctm, found 'srt'"),
        (["a.wav", "--package", "x", "--rate", "8000"], "raw samples from standard input"),
        (["-", "a.wav", "--package", "x"], "stands alone"),
        (["a.wav", "--package", "x", "--stream", "--one-speaker"], "normalised as it comes"),
        (["a.wav", "--package", "x", "--threads", "none"], "whole number of at least 1"),
    ],
)
def test_wrong_command_lines(arguments, message, capsys):
    code, lines, said = transcribe(capsys, *arguments)
    assert code == 2 and lines == [] and message in said


def test_a_folder_that_is_no_package(folder, capsys):
    code, _, said = transcribe(capsys, "a.wav", "--package", "below")
    assert code == 1 and "below: expected a package, found no package.json" in said


def test_help(capsys):
    assert main(["transcribe", "--help"]) == 0
    assert "--one-speaker" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "transcribe FILE" in " ".join(capsys.readouterr().out.split())


FORBIDDEN = ("torch", "torchaudio", "k2", "lhotse", "pydantic", "yaml", "scipy", "rich", "safetensors", "sentencepiece", "kaldilm", "onnx")
BLOCKED = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from dropasr.cli import main
sys.exit(main())
"""


def blocked(*arguments: str, folder: Path, data: bytes | None = None) -> subprocess.CompletedProcess:
    """The command in a Python that cannot import what the runtime extra does not bring."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", BLOCKED, *arguments], cwd=folder, env=environment, input=data, capture_output=True)


def test_nothing_but_the_runtime_packages_is_imported(folder, package):
    for form in ("text", "json", "ctm"):
        result = blocked("transcribe", ".", "--package", package, "--format", form, folder=folder)
        assert result.returncode == 0 and b"HIGH" in result.stdout, result.stderr.decode()
    result = blocked("train", folder=folder)
    assert result.returncode == 1 and b"requirements.txt" in result.stderr and b"Traceback" not in result.stderr


def test_raw_samples_from_standard_input(folder, package):
    data = (np.concatenate([speech(["LOW"], rate=16000)[0], speech(["HIGH"], rate=16000)[0]]) * 32767).astype("<i2").tobytes()
    result = blocked("transcribe", "-", "--rate", "16000", "--package", package, folder=folder, data=data)
    assert result.returncode == 0 and result.stdout.split() == [b"LOW", b"HIGH"], result.stderr.decode()
    assert b"note: standard input: resampled from 16000 to 8000 Hz" in result.stderr
    empty = blocked("transcribe", "-", "--package", package, folder=folder, data=b"")
    assert empty.returncode == 1 and b"standard input: expected raw 16-bit samples, found none" in empty.stderr


def test_the_runtime_extra_has_the_pins_of_the_requirements():
    lines = (REPOSITORY / "pyproject.toml").read_text().partition("runtime = [")[2].partition("]")[0].splitlines()
    extra = {line.strip().rstrip(",")[1:-1] for line in lines if line.strip()}
    pins = set((REPOSITORY / "requirements.txt").read_text().splitlines())
    assert extra and extra <= pins, extra - pins
    assert "dependencies = []" in (REPOSITORY / "pyproject.toml").read_text()
