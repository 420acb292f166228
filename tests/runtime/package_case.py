"""A package whose two words are tones, made with numpy and onnx alone: what is said and when is known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from dropasr.lang.fst import FINAL, Arcs
from dropasr.lang.graph import save_words
from dropasr.lang.graph_kaldi import save_graph
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.units import OutputUnits
from dropasr.runtime.exported import STREAM, WHOLE, Exported
from dropasr.runtime.frontend import LogMel
from dropasr.runtime.package import GRAPH, LEXICON, UNITS, WORDS, SearchSettings, write_list, write_settings

RATE = 8000
FEATURES = {"num_mel_bins": 20, "frame_shift": 0.01, "frame_length": 0.025, "low_freq": 20.0, "high_freq": -400.0}
TONES = {"LOW": (400.0, 800.0), "HIGH": (2400.0, 1200.0)}
"""The words; each has two phones, tones of these frequencies, as long as each other."""
PHONES = ("H1", "H2", "L1", "L2")
LEXICON_ENTRIES = {"HIGH": [["H1", "H2"]], "LOW": [["L1", "L2"]]}
CONTEXT = 2


def tone(frequency: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def silence(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return (1e-3 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def speech(words: list[str], pause: float = 0.3, length: float = 0.4, rate: int = RATE) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Samples of words with pauses before, between and after, and when each word begins and ends."""
    parts, times, now = [silence(pause, rate)], [], pause
    for number, word in enumerate(words):
        parts += [tone(frequency, length / 2, rate) for frequency in TONES[word]] + [silence(pause, rate, number)]
        times.append((now, now + length))
        now += length + pause
    return np.concatenate(parts), times


def write_speech(path: Path, words: list[str], **options: float) -> list[tuple[float, float]]:
    samples, times = speech(words, **options)
    soundfile.write(path, samples, int(options.get("rate", RATE)))
    return times


def log_mel(samples: np.ndarray) -> np.ndarray:
    extractor = LogMel(FEATURES, RATE)
    return np.concatenate([extractor.feed(samples), extractor.finish()])


def _classifier(units: OutputUnits) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and std of the features, and a linear classifier of normalised frames: weights `(F, K)` and bias `(K,)`."""
    frequency = {"L1": TONES["LOW"][0], "L2": TONES["LOW"][1], "H1": TONES["HIGH"][0], "H2": TONES["HIGH"][1]}
    sounds = [silence(0.5)] + [tone(frequency[phone], 0.5) for phone in units.phones]
    classes = [log_mel(samples)[3:-3].mean(axis=0) for samples in sounds]
    everything = np.concatenate([log_mel(samples)[3:-3] for samples in sounds])
    mean, std = everything.mean(axis=0), everything.std(axis=0)
    centres = (np.stack(classes) - mean) / std
    return mean, std, centres.T.astype(np.float32), (-0.5 * np.square(centres).sum(axis=1)).astype(np.float32)


def _net(weights: np.ndarray, bias: np.ndarray, scale: float, log_prior: np.ndarray, streaming: bool) -> bytes:
    """The graph of a linear classifier of the mean of 2 * CONTEXT + 1 frames; the whole-utterance form repeats the edges."""
    from onnx import TensorProto, helper, numpy_helper

    taps = 2 * CONTEXT + 1
    constants = {
        "weights": weights,
        "bias": bias,
        "prior": log_prior.astype(np.float32),
        "scale": np.array(scale, np.float32),
        "box": np.full((1, 1, taps, 1), 1 / taps, np.float32),
        "four": np.array([0, 1], np.int64),
        "pads": np.array([CONTEXT, 0, CONTEXT, 0], np.int64),
    }
    name = "window" if streaming else "features"
    nodes = [] if streaming else [helper.make_node("Pad", [name, "pads"], ["padded"], mode="edge")]
    nodes += [
        helper.make_node("Sub", [name if streaming else "padded", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Unsqueeze", ["normalised", "four"], ["image"]),
        helper.make_node("Conv", ["image", "box"], ["smooth"]),
        helper.make_node("Squeeze", ["smooth", "four"], ["frames"]),
        helper.make_node("MatMul", ["frames", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["posteriors"], axis=1),
        helper.make_node("Sub", ["posteriors", "prior"], ["likelihoods"]),
        helper.make_node("Mul", ["likelihoods", "scale"], ["scores"]),
    ]
    bins, units = weights.shape
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["T", bins]),
        *(helper.make_tensor_value_info(text, TensorProto.FLOAT, [bins]) for text in ("mean", "std")),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", units])]
    tensors = [numpy_helper.from_array(value, key) for key, value in constants.items() if key != "pads" or not streaming]
    graph = helper.make_graph(nodes, "tones", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def _graph(units: OutputUnits, words: list[str]) -> object:
    """Any sequence of words, with optional silence around each, all equally likely; phones as they are in `LEXICON_ENTRIES`."""
    rows: list[tuple[int, int, int, int, float]] = [(0, 0, units.pdf("SIL", 0) + 1, 0, 0.0)]
    states = 1
    for word, (phones,) in LEXICON_ENTRIES.items():
        before, label = 0, words.index(word)
        for phone in phones:
            unit = units.pdf(phone, 0) + 1
            rows += [(before, states, unit, label, -1.0 if label else 0.0), (states, states, unit, 0, 0.0)]
            before, label, states = states, 0, states + 1
        rows.append((before, 0, 0, 0, 0.0))
    return Arcs.from_rows([*rows, (0, states, FINAL, FINAL, 0.0)]).to_kaldifst(shift=0)


def write_package(folder: Path, prior_frames: float = 1e5) -> Path:
    """A package for the words LOW and HIGH."""
    folder.mkdir(parents=True)
    units = OutputUnits(PHONES, 1, 1)
    mean, std, weights, bias = _classifier(units)
    log_prior, scale = np.log(np.full(units.num_units, 0.2)), 0.5
    for name, streaming in ((WHOLE, False), (STREAM, True)):
        (folder / name).write_bytes(_net(weights, bias, scale, log_prior, streaming))
    card = Exported(
        corpus="tones", licence="none", model="linear", row="dense", dims={}, widths=[], git_revision="", sample_rate=RATE,
        features=FEATURES,
        normalisation={"kind": "utterance", "prior_frames": prior_frames, "mean": mean.tolist(), "std": std.tolist()},
        stride=1, left_context=CONTEXT, right_context=CONTEXT, output_delay=0, recurrent=False, states=[], acoustic_scale=scale,
        prior="equal", units=units.num_units,
    )  # fmt: skip
    card.write(folder, [WHOLE, STREAM])
    lexicon = Lexicon(LEXICON_ENTRIES)
    words = ["<eps>", *lexicon.entries, "#0", "<s>", "</s>"]
    save_words(folder / WORDS, words)
    lexicon.save(folder / LEXICON)
    units.save(folder / UNITS)
    save_graph(folder / GRAPH, _graph(units, words))
    write_settings(folder, SearchSettings(12.0, 1000, 30, log_prior.tolist()))
    write_list(folder)
    return folder
