"""`python -m dropasr VERB`: what a verb says, takes and refuses, and with which exit code it ends."""

from __future__ import annotations

import pytest
from stages_case import Experiment, command

from dropasr.cli import main
from dropasr.errors import DropasrError
from dropasr.stamps import Stamps
from dropasr.verbs import VERBS


def test_the_command_line_runs_logs_and_skips(experiment: Experiment, calls: list[str], capsys: pytest.CaptureFixture[str]):
    assert command(experiment, "data") == 0
    out = capsys.readouterr().out
    assert "stage 1 data: get or make the corpus" in out and "stage 1 data: done in" in out
    log_file = experiment.stamps().paths.logs / "1-data.log"
    assert "stage 1 data: done in" in log_file.read_text(encoding="utf-8")
    assert command(experiment, "data") == 0
    assert capsys.readouterr().out == "stage 1 data: already done for this configuration\n"
    assert command(experiment, "data", "--nj", "7") == 0
    assert calls == ["data"]


def test_the_plan_tells_what_is_to_do(experiment: Experiment, calls: list[str], capsys: pytest.CaptureFixture[str]):
    experiment.run()
    assert command(experiment, "plan", "--stage", "4", "--set", "train.epochs=5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[1:] for line in lines[1:4]] == [
        ["align", "done"],
        ["train", "to do: train.epochs 2 → 5"],
        ["compact", "to do: stage train changed, train.epochs 2 → 5"],
    ]
    for wrong, words in (
        (("--set", "model.widht=5"), "did you mean 'width'"),
        (("--row", "densy"), "no row 'densy'"),
        (("--set", "lang.lexicon=none.txt", "--exp-dir", "new", "--data-dir", "new"), "lang.lexicon: there is no file"),
        (("--set", "corpus.prepare=lhotse:ysno"), "did you mean"),
        (("--set", "features.frame_shift=0"), "features.frame_shift"),
    ):
        assert command(experiment, "plan", *wrong) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["export", "package"])
def test_what_describes_a_row_wants_the_configuration_that_made_it(experiment, calls, capsys: pytest.CaptureFixture[str], verb: str):
    assert command(experiment, verb, "densy", "out") == 2 and "no row 'densy'" in capsys.readouterr().err
    experiment.run()
    assert command(experiment, verb, "dense", "out", "--set", "features.low_freq=100") == 1
    assert "what stage 2 (features) made is not for this configuration: features.low_freq 20.0 → 100" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DropasrError("x.wav: truncated"), 1, "error: x.wav: truncated\n"),
        (OSError(28, "No space left on device", "exp/a"), 1, "error: the disk is full while writing exp/a."),
        (NotADirectoryError(20, "Not a directory", "exp/a"), 1, "error: exp/a: it cannot be read or written (Not a directory)."),
        (RuntimeError("I/O error: No space left on device"), 1, "error: the disk is full."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("bug"), 1, "Traceback"),
    ],
)
def test_exit_codes(experiment, calls, monkeypatch, capsys, error: BaseException, code: int, words: str):
    def fail(self: Stamps, stage: object, nj: int, ahead: bool) -> None:
        raise error

    monkeypatch.setattr(Stamps, "run", fail)
    assert command(experiment, "data") == code
    assert capsys.readouterr().err.startswith(words)
    assert type(error).__name__ in (experiment.stamps().paths.logs / "1-data.log").read_text(encoding="utf-8")


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]):
    assert main(["decod"]) == 2
    assert "did you mean 'decode'" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "verbs:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["compact-net", "net.yaml", "--conf", "conf/fsdd.yaml"], ["'--conf'", "'compact-net'", "other verbs"]),
        (["compact-net", "net.yaml", "--model=lstm"], ["'--model'", "'compact-net'"]),
        (["train", "--row", "dense"], ["'--row'", "'train'", "plan and row"]),
        (["table", "recipes/fsdd", "--seed", "2"], ["'--seed'", "'table'"]),
        (["stack", "--nj", "1"], ["'--nj'", "'stack'"]),
        (["decode", "--budget", "macs=1/8"], ["'--budget'", "budget and compact-net"]),
        (["table", "--confg", "x"], ["unknown option '--confg'", "python -m dropasr table --help"]),
        (["row", "dense"], ["'dense'", "'row' takes no arguments"]),
        (["row"], ["--row NAME"]),
    ],
    ids=" ".join,
)
def test_options_that_a_verb_has_no_use_for_are_refused(capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]):
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and all(word in message for word in words), message


def test_every_verb_lists_the_options_that_it_takes(capsys: pytest.CaptureFixture[str]):
    shown = {}
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        shown[verb] = {word for line in capsys.readouterr().out.splitlines() for word in line.split()[:1] if word.startswith("--")}
    assert shown["compact-net"] == {"--budget", "--epochs", "--method", "--seed", "--exp-dir", "--set", "--list", "--help"}
    assert shown["table"] == {"--list", "--help"}
    assert [verb for verb in VERBS if "--row" in shown[verb]] == ["plan", "row"]
    assert shown["collect"] == shown["train"] == shown["plan"] - {"--row"}, "what run.sh took serves for collect, too"
