"""What several tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stages_case import Experiment

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported
os.environ.pop("DROPASR_CALLER_DIR", None)  # tests mean relative paths from their own folders, whoever started pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = """\
corpus: {name: tiny, prepare: "lhotse:yesno", sample_rate: 8000, one_speaker: true}
features: {num_mel_bins: 20}
lang: {lexicon: {KEN: K EH N, LO: L OW}, order: 1}
align: {gaussian_rounds: 2, net_rounds: 1, width: 16, epochs: 1}
model: {layers: 2, width: 32}
train: {epochs: 2, batch_size: 64}
rtf: {utterances: 4, repeats: 2}
"""


@pytest.fixture(autouse=True)
def plain_logger() -> None:
    """The logger as before `log.setup`, which verbs call; pytest itself listens to loggers that do not propagate, beside the root."""
    logger = logging.getLogger("dropasr")
    logger.handlers.clear()
    logger.propagate = True


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Folder with unpacked corpora of real speech, named by DROPASR_CORPORA."""
    folder = os.environ.get("DROPASR_CORPORA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    if os.environ.get("ALLOW_NO_CORPORA") == "1":
        pytest.skip("no corpora (ALLOW_NO_CORPORA=1)")
    pytest.fail(
        f"tests on real speech need unpacked corpora: DROPASR_CORPORA is {folder!r}, expected a folder with waves_yesno,"
        " free-spoken-digit-dataset, LibriSpeech and lm-text. Set it, or skip these tests with ALLOW_NO_CORPORA=1."
    )


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Callable[..., Path]:
    """Write a small configuration and return its path; `extra` is YAML text, sections in place of TINY's or beside them."""

    def write(extra: str = "", name: str = "tiny.yaml") -> Path:
        own = {line.partition(":")[0] for line in extra.splitlines()}
        path = tmp_path / name
        path.write_text("".join(line for line in TINY.splitlines(True) if line.partition(":")[0] not in own) + extra, encoding="utf-8")
        return path

    return write


@pytest.fixture
def experiment(tiny_yaml: Callable[..., Path], tmp_path: Path) -> Experiment:
    """A small experiment in a temporary folder."""
    from stages_case import Experiment

    return Experiment(tiny_yaml(), tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Verbs of the stages that really ran; each only writes the outputs that it declares."""
    from stages_case import replace_stages

    return replace_stages(monkeypatch)
