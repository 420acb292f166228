"""Both search backends on one graph: the time and memory that it takes to build, WER on dev, search RTF, and words that differ.

    python benchmarks/search_backends.py ROW [options of run.sh]

for a trained row of an experiment whose stages 1 to 5 have run with the same options. Both backends search the scores that the net gives
at the first of the acoustic scales; dev alone is decoded. With a language model of its own for the comparison:

    python benchmarks/search_backends.py dense --conf recipes/mini_librispeech/conf.yaml --set lang.vocabulary=20000 --lang DIR

builds that language model (stage 3) in the new folder DIR and leaves the experiment alone. Ends with exit code 1 if the WERs differ by more
than `--wanted` (default 0.1 % absolute).
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from dropasr.config import Config, has_own_graph, rows
from dropasr.data.store import FrameStore
from dropasr.decoding.graphs import make_graphs
from dropasr.decoding.likelihoods import load_log_prior, log_likelihoods
from dropasr.decoding.search import load_search
from dropasr.errors import DropasrError
from dropasr.invocation import load
from dropasr.lang.build import build
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.pieces import load_units
from dropasr.models.checkpoint import load_net
from dropasr.options import parse
from dropasr.paths import Paths
from dropasr.runtime.machine import pinned
from dropasr.scoring.wer import score

BACKENDS = ("k2", "kaldi")


def language_paths(config: Config, paths: Paths, folder: Path | None) -> Paths:
    """The experiment's paths, or those of a copy whose language model is made in `folder` from the same manifests."""
    if folder is None:
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("manifests", "corpus", "g2p"):
        if (paths.data_dir / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to(paths.data_dir / name)
    copy = replace(paths, data_dir=folder)
    if not copy.lang.exists():
        build(config, copy, 1)
    return copy


def main() -> int:
    """Build, decode, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row")
    parser.add_argument("--lang", type=Path, help="folder for a language model of its own")
    parser.add_argument("--wanted", type=float, default=0.1, help="largest difference in WER, %% absolute (default 0.1)")
    given, rest = parser.parse_known_args()
    config, paths = load(parse(rest))
    if given.row not in {row.name for row in rows(config)}:
        parser.error(f"there is no row '{given.row}' in this configuration: {', '.join(row.name for row in rows(config))}")
    spoken = language_paths(config, paths, given.lang)
    target = spoken.data_dir / "benchmark_graph"
    target.mkdir(parents=True, exist_ok=True)
    units, lexicon = load_units(paths.align / "units.json"), Lexicon.load(spoken.lang / "lexicon.txt")
    units.save(target / "units.json")
    begin = time.perf_counter()
    figures = make_graphs(config, spoken, lexicon, units, target, BACKENDS, skips=has_own_graph(config))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    taken = time.perf_counter() - begin
    print(f"{len(lexicon.entries)} words; graphs in {taken:.0f} s (0 s: from the cache), peak memory {peak:.1f} GiB: {figures}")
    net, store = load_net(paths.net(given.row)), FrameStore.open(paths.features("dev"))
    stride = config.train.frame_subsampling
    scale, prior = stride * config.decode.acoustic_scales[0], load_log_prior(config, paths, given.row)
    scores = [scale * log_likelihoods(net, store.utterance(index), prior, stride) for index in range(len(store))]
    seconds = store.num_frames * config.features.frame_shift
    references = dict(zip(store.ids, store.texts))
    words, rates = {}, {}
    for backend in BACKENDS:
        search = load_search(target, config.decode.model_copy(update={"backend": backend}), spoken.lang / "words.txt")
        with pinned(), torch.no_grad():
            begin = time.perf_counter()
            words[backend] = {id_: search.decode([item])[0].words for id_, item in zip(store.ids, scores)}
            taken = time.perf_counter() - begin
        result = score(references, words[backend])
        rates[backend] = result.wer
        parts = f"{result.substitutions} substituted, {result.deletions} deleted, {result.insertions} inserted"
        print(f"{backend:<6} WER {result.wer:.2f} % ({parts}), search RTF {taken / seconds:.4f} (one thread)")
    other = sum(words["k2"][id_] != words["kaldi"][id_] for id_ in store.ids)
    difference = abs(rates["k2"] - rates["kaldi"])
    print(f"difference {difference:.2f} % absolute; {other} of {len(store)} utterances have other words")
    return int(difference > given.wanted)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DropasrError as error:
        sys.exit(f"error: {error}")
