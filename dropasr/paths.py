"""Where things lie: one place that knows the folders of a data directory and an experiment directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GRAPH_CONSTRUCTION = 2
"""Counts the ways in which decoding graphs were made from the same inputs; with a new one, all graphs are made and searched anew."""


@dataclass(frozen=True)
class Paths:
    """Folders of one experiment.

    `data_dir` holds what depends on the corpus alone (stages 1-3), `exp_dir` the alignment (stage 4, shared by models and
    seeds) and one folder per model and training seed (stages 5-9). Systems that share the nets of a run but decode them in another way
    have folders of their own in it (stages 7-9).
    """

    data_dir: Path
    exp_dir: Path
    model: str
    seed: int
    system: str = ""
    """Folder name of a system that is not the one that the nets were trained for (`dropasr.config.system_folder`)."""

    @property
    def corpus(self) -> Path:
        """Audio that the toolkit itself makes or downloads."""
        return self.data_dir / "corpus"

    @property
    def manifests(self) -> Path:
        """`{train,dev,test}.jsonl.gz` (lhotse cuts), `report.json`, and `lexicon.txt` or `lm_text.txt` if the corpus makes them."""
        return self.data_dir / "manifests"

    def cuts(self, split: str) -> Path:
        """The cut manifest of one split."""
        return self.manifests / f"{split}.jsonl.gz"

    def features(self, split: str) -> Path:
        """The frame store of one split."""
        return self.data_dir / "features" / split

    @property
    def lang(self) -> Path:
        """Lexicon, word list, n-gram, and what word pieces are made with."""
        return self.data_dir / "lang"

    @property
    def graphs(self) -> Path:
        """Decoding graphs by the hash of what they were made of, shared by experiments."""
        return self.data_dir / "graphs"

    @property
    def align(self) -> Path:
        """Output units, labels of train and dev, priors, decoding graphs, and the alignment report."""
        return self.exp_dir / "align"

    @property
    def run(self) -> Path:
        """Everything of one model and seed: its nets, and what systems made of them."""
        return self.exp_dir / self.model / f"seed{self.seed}"

    def net(self, row: str) -> Path:
        """One trained net: checkpoint, `summary.json`, TensorBoard events, log."""
        return self.run / "nets" / row

    @property
    def system_home(self) -> Path:
        """What one system made of the nets of a run: the run itself, or a folder in it."""
        return self.run / "systems" / self.system if self.system else self.run

    @property
    def own_graph(self) -> Path:
        """Decoding graph and output units of a system that needs others than those of `align`."""
        return self.system_home / "graph"

    def scores(self, row: str) -> Path:
        """WER of one net on dev and test, and its hypotheses."""
        return self.system_home / "scores" / f"{row}.json"

    def score_parts(self, row: str) -> Path:
        """What stage 7 has decoded of a row that is not finished."""
        return self.system_home / "scores" / f"{row}.parts"

    @property
    def rtf(self) -> Path:
        """The timing of all nets of this system."""
        return self.system_home / "rtf.json"

    @property
    def report(self) -> Path:
        """`report.md`, `report.html`, plots."""
        return self.system_home / "report"

    @property
    def results(self) -> Path:
        """The table for programs."""
        return self.system_home / "results.json"

    @property
    def test_log(self) -> Path:
        """Every evaluation on test, one JSON line each."""
        return self.exp_dir / "test_evaluations.jsonl"

    @property
    def logs(self) -> Path:
        """One log file per stage."""
        return self.system_home / "log"
