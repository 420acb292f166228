"""Flat start on synthetic frames whose true alignment is known: rounds, tying, copies, workers, and going on after a kill."""

from __future__ import annotations

import json
import pickle
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from dropasr.config import Config
from dropasr.data.store import FrameStore, FrameStoreWriter
from dropasr.errors import ConfigError, DataError
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.units import OutputUnits
from dropasr.models.feedforward import FeedForward
from dropasr.paths import Paths
from dropasr.training import flat_start
from dropasr.training.labelling import Labeller, NetScorer, Split
from dropasr.training.rounds import plan

LEXICON = Lexicon.from_mapping({"one": "A B", "two": "B C", "six": "C"})
MEL = 10


def config(**sections) -> Config:
    align = {"gaussian_rounds": 2, "net_rounds": 2, "width": 16, "layers": 1, "epochs": 1, **sections.pop("align", {})}
    lang = {"states_per_phone": 2, "silence_states": 1, "silence_probability": 0.3, **sections.pop("lang", {})}
    return Config.model_validate(
        {"corpus": {"name": "x", "prepare": "local/x.py"}, "features": {"num_mel_bins": MEL}, "align": align, "lang": lang, **sections}
    )


def make_split(folder: Path, utterances: int, copies: bool, seed: int) -> None:
    """Frames around a centre per state, shifted by the phone before; every state lasts 3 to 6 frames. Copies follow their originals."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(0, 3, (8, 4, MEL))
    numbers = {"SIL": 0, "A": 1, "B": 2, "C": 3}
    with FrameStoreWriter(folder, MEL, "float32") as writer:
        for index in range(utterances):
            words = [str(word) for word in rng.choice(list(LEXICON.entries), 3)]
            phones = ["SIL", *(phone for word in words for phone in LEXICON.entries[word][0]), "SIL"]
            for name in (f"u{index}", f"sp0.9-u{index}") if copies else (f"u{index}",):
                parts = []
                for left, phone in zip(["SIL", *phones], phones):
                    for state in range(1 if phone == "SIL" else 2):
                        centre = centres[2 * numbers[phone] + state, 0] + 0.3 * centres[7, numbers[left]]
                        parts.append(centre + rng.normal(0, 0.3, (rng.integers(3, 7), MEL)))
                frames = np.concatenate(parts).astype(np.float32)
                original = {"original": f"u{index}"} if name.startswith("sp") else {}
                writer.add(name, "s", words, len(frames) / 100, frames, **original)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "data", tmp_path / "exp", "feedforward", 1)
    make_split(paths.features("train"), 30, copies=True, seed=1)
    make_split(paths.features("dev"), 6, copies=False, seed=2)
    paths.lang.mkdir(parents=True)
    LEXICON.save(paths.lang / "lexicon.txt")
    return paths


def run(settings: Config, paths: Paths, nj: int = 1):
    torch.set_num_threads(1)
    return flat_start.label(settings, paths, LEXICON, "kaldi", nj)[0]


TIED = {"tying": "likelihood", "num_units": 11, "min_count": 20}


def test_plan():
    names = [step.name for step in plan(config(lang=TIED))]
    assert names == ["Gaussian round 1", "Gaussian round 2", "net round 1", "net round 2", "tying", "biphone round 1"]
    for settings, last in [
        (config(lang=TIED), "biphone round 1"),
        (config(lang=TIED, align={"biphone_rounds": 0}), "net round 2"),
        (config(), "net round 2"),
    ]:
        assert [step.name for step in plan(settings) if step.everything] == [last]
        assert [step.name for step in plan(settings) if step.kind == "gaussian" and step.all_originals] == ["Gaussian round 2"]


@pytest.mark.parametrize("biphone_rounds", [0, 1])
def test_tied_labels_of_all_copies_and_dev(paths, biphone_rounds):
    state = run(config(lang=TIED, align={"biphone_rounds": biphone_rounds}), paths)
    assert state.units.num_units == 11 and (state.train >= 0).all() and (state.dev >= 0).all()
    assert set(state.train.tolist()) == set(range(11))
    store = FrameStore.open(paths.features("train"))
    for i in range(len(store)):
        phones = state.units.phone_index(state.train[store.offsets[i] : store.offsets[i + 1]])
        spoken = [number for number, _ in groupby(phones[phones > 0].tolist())]
        wanted = [number for number, _ in groupby(" ABC".index(phone) for word in store.texts[i] for phone in LEXICON.entries[word][0])]
        assert spoken == wanted


def test_a_second_round_learns_from_copies(paths, monkeypatch):
    """The first round with tied units has labels of originals alone; the second one draws the same number of frames from all copies."""
    frames, real = {}, flat_start.FrameSampler

    def sampler(store, labels, context, batch_size, utterances, *rest):
        made = real(store, labels, context, batch_size, utterances, *rest)
        frames[len(frames)] = (sum(len(batch[1]) for batch in made.epoch(0)), len(utterances))
        return made

    monkeypatch.setattr(flat_start, "FrameSampler", sampler)
    run(config(lang=TIED, align={"biphone_rounds": 2, "net_rounds": 1}), paths)
    store = FrameStore.open(paths.features("train"))
    originals = sum(np.diff(store.offsets)[i] for i in range(len(store)) if store.ids[i] == store.originals[i])
    assert [utterances for _, utterances in frames.values()] == [30, 30, 60]
    assert frames[0][0] == frames[1][0] == originals and frames[2][0] == pytest.approx(store.num_frames / 2, abs=1)


def test_labels_of_phones_end_without_tying(paths):
    state = run(config(), paths)
    assert state.units == OutputUnits(("A", "B", "C"), 2, 1) and (state.train >= 0).all()
    assert [row["name"] for row in state.report] == ["Gaussian round 1", "Gaussian round 2", "net round 1", "net round 2"]
    assert all(row["changed_percent"] < 20 for row in state.report[1:])


@pytest.mark.parametrize("killed_in", ["Gaussian round 2", "net round 2", "tying", "biphone round 1"])
def test_a_killed_stage_goes_on_after_its_last_round(paths, tmp_path, monkeypatch, killed_in):
    settings = config(lang=TIED)
    other = Paths(paths.data_dir, tmp_path / "other", "feedforward", 1)
    whole = run(settings, other)
    real, done, kills = flat_start.FlatStart.run, [], [killed_in]

    def step_of(self, step, state):
        done.append(step.name)
        if step.name in kills:
            kills.clear()
            raise KeyboardInterrupt
        return real(self, step, state)

    monkeypatch.setattr(flat_start.FlatStart, "run", step_of)
    with pytest.raises(KeyboardInterrupt):
        run(settings, paths)
    resumed = run(settings, paths)
    assert [name for name in done if done.count(name) > 1] == [killed_in] * 2
    assert np.array_equal(resumed.train, whole.train) and np.array_equal(resumed.dev, whole.dev)
    assert resumed.units == whole.units and resumed.report == whole.report
    done.clear()
    again = run(settings, paths)
    assert done == [] and np.array_equal(again.train, whole.train)
    assert len(list((paths.align / "rounds").iterdir())) == 2
    # Other classes begin at the tying; another beam begins anew.
    run(config(lang={**TIED, "num_units": 9}), paths)
    assert done == ["tying", "biphone round 1"]
    run(config(lang={**TIED, "num_units": 9}, align={"beam": 100}), paths)
    assert len(done) == 8


def test_too_few_units_are_refused_before_anything_is_done(paths):
    with pytest.raises(ConfigError, match=r"lang\.num_units: 3 phones of 2 states and 1 of silence need at least 7 units, found 6"):
        run(config(lang={**TIED, "num_units": 6}), paths)
    assert not paths.align.exists()


def test_a_damaged_round_is_named(paths):
    run(config(), paths)
    (file,) = (paths.align / "rounds").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{file.name}: expected the labels of a round"):
        run(config(), paths)


def test_rounds_of_another_format_are_done_again(paths, monkeypatch):
    first = run(config(lang=TIED), paths)
    (file,) = (file for file in (paths.align / "rounds").iterdir() if file.name.startswith("biphone"))
    with np.load(file) as parts:
        about = json.loads(str(parts["about"]))
        kept = {"train": parts["train"], "dev": parts["dev"]}
    assert about.pop("format") == 1
    done, real = [], flat_start.FlatStart.run
    monkeypatch.setattr(flat_start.FlatStart, "run", lambda self, step, state: (done.append(step.name), real(self, step, state))[1])
    for number, expected in [(None, []), (2, ["tying", "biphone round 1"])]:
        stated = about if number is None else {**about, "format": number}
        np.savez(file, about=np.array(json.dumps(stated)), **kept)
        again = run(config(lang=TIED), paths)
        assert done == expected and np.array_equal(again.train, first.train)


def test_workers_give_the_same_labels(paths):
    settings, units = config(), OutputUnits(("A", "B", "C"), 2, 1)
    split = Split.of(FrameStore.open(paths.features("train")), LEXICON, units, 0.0)
    torch.manual_seed(0)
    scorer = NetScorer(FeedForward(MEL, (2, 2), [16], units.num_units).eval(), torch.linspace(-3, -1, units.num_units))
    sent = pickle.loads(pickle.dumps(scorer))
    assert torch.equal(sent(split.store, 3), scorer(split.store, 3))
    found = []
    for nj in (1, 2):
        with Labeller(settings, LEXICON, "kaldi", nj) as labeller:
            found.append(labeller.labels(split, units, split.originals, scorer, "test"))
    assert np.array_equal(*found)
    originals = np.repeat(
        [name == original for name, original in zip(split.store.ids, split.store.originals)], np.diff(split.store.offsets)
    )
    assert ((found[0] >= 0) == originals).all() and 0 < originals.mean() < 1


def test_utterances_that_cannot_be_aligned(paths, tmp_path):
    units = OutputUnits(("A", "B", "C"), 2, 1)
    with FrameStoreWriter(tmp_path / "some", MEL, "float32") as writer:
        for name, words, frames in [("good", ["one"], 9), ("unknown", ["one", "ten"], 20), ("short", ["one", "two"], 7)]:
            writer.add(name, "s", words, frames / 100, np.zeros((frames, MEL), np.float32))
    store = FrameStore.open(tmp_path / "some")
    split = Split.of(store, LEXICON, units, 0.4)
    assert split.usable == split.originals == [0] and split.failed == ["unknown", "short"]
    with pytest.raises(DataError, match=r"1 of 3 utterances have fewer frames than their transcript needs \(short, …\); at most 0 may"):
        Split.of(store, LEXICON, units, 0.0)
