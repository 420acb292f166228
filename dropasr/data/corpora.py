"""Stage 1: from a corpus as its publisher lays it out to checked lhotse cuts.

A corpus comes from a recipe of lhotse (`lhotse:NAME`) or from a script (`local/prepare_NAME.py`) that defines

    class PrepareOptions(Options)   # typed; `corpus.options` of the YAML
    def prepare(corpus: CorpusConfig, options: PrepareOptions, folder: Path, nj: int) -> dict[str, tuple[RecordingSet, SupervisionSet]]

with the keys train, dev and test. A script may write audio, `lexicon.txt` and `lm_text.txt` into `folder`, and import modules beside it.
"""

from __future__ import annotations

import gzip
import importlib.util
import inspect
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dropasr.config import REPOSITORY, Config, CorpusConfig, Options, nearest, parse_options
from dropasr.data.validate import Split, check_split, check_splits, read_words
from dropasr.errors import ConfigError, DataError
from dropasr.files import atomic_path, write_json, write_text
from dropasr.log import get_logger
from dropasr.paths import Paths

if TYPE_CHECKING:
    from lhotse import RecordingSet, SupervisionSet

    Manifests = dict[str, tuple[RecordingSet, SupervisionSet]]

SPLITS = ("train", "dev", "test")
_MADE = ("lexicon.txt", "lm_text.txt")
_LOG = get_logger(__name__)


class LhotseOptions(Options):
    """Options of a corpus with a recipe in lhotse."""

    folder: str = ""
    """Name of the corpus's own folder; looked for inside `corpus_dir`, which may also be that folder itself."""
    train_parts: list[str] = Field(default=["train"], min_length=1)
    """Parts of the recipe's result that make the training set."""
    dev_parts: list[str] = []
    """Parts that make the development set; without them it is carved from the training set."""
    test_parts: list[str] = Field(default=["test"], min_length=1)
    """Parts that make the test set."""
    dev_speakers: list[str] = []
    """Speakers that go from the training set to the development set, where there are no `dev_parts`."""
    dev_utterances: int = Field(default=0, ge=0)
    """Last utterances of the training set, by id, that go to the development set, where neither parts nor speakers are named for it."""
    recipe: dict[str, Any] = {}
    """Further arguments of lhotse's prepare function."""


def prepare(config: Config, paths: Paths, nj: int) -> None:
    """Make `paths.cuts(split)` and `manifests/report.json`, and copy the lexicon and language-model text that the corpus makes.

    Raises DataError where the corpus is missing or a check fails, ConfigError for options that the corpus does not have.
    """
    corpus = config.corpus
    folder = paths.corpus.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _MADE:
        (folder / name).unlink(missing_ok=True)
        (paths.manifests / name).unlink(missing_ok=True)
    if corpus.corpus_dir is not None and not Path(corpus.corpus_dir).expanduser().is_dir():
        raise DataError(
            f"corpus {corpus.name}: corpus.corpus_dir is '{corpus.corpus_dir}', which is no folder (seen from {Path.cwd()}). "
            "Correct --corpus-dir, or leave it out to have the corpus downloaded or made, where that is possible."
        )
    kind, _, recipe = corpus.prepare.partition(":")
    manifests = _from_lhotse(corpus, recipe, folder, nj) if kind == "lhotse" else _from_script(corpus, folder, nj)
    missing = [name for name in SPLITS if name not in manifests]
    if missing:
        raise DataError(
            f"corpus {corpus.name}: expected the splits train, dev and test, found no {missing[0]} in what {corpus.prepare} returned."
        )
    words = known_words(config, folder)
    splits = []
    for name in SPLITS:
        recordings, supervisions = manifests[name]
        splits.append(check_split(name, recordings, supervisions, corpus, words, config.lang.unknown_word, nj))
    check_splits(splits, corpus.one_speaker)
    for name in _MADE:
        if (folder / name).exists():
            write_text(paths.manifests / name, (folder / name).read_text(encoding="utf-8"))
    for split in splits:
        _write_cuts(split, paths.cuts(split.name))
    report = _report(corpus, splits, paths.manifests / "lm_text.txt")
    write_json(paths.manifests / "report.json", report)
    _log(report)


def known_words(config: Config, folder: Path) -> set[str] | None:
    """The vocabulary of `lang.lexicon`, or of the lexicon that the corpus made in `folder`; None where there is neither."""
    lexicon = config.lang.lexicon
    if isinstance(lexicon, dict):
        return read_words(lexicon)
    if lexicon is not None:
        return read_words(_find(lexicon))
    return read_words(folder / "lexicon.txt") if (folder / "lexicon.txt").exists() else None


def _find(name: str) -> Path:
    """A path of a configuration: seen from the working directory, or else from the repository."""
    path = Path(name).expanduser()
    return path if path.exists() or path.is_absolute() else REPOSITORY / path


def load_script(name: str) -> ModuleType:
    """Import `local/prepare_NAME.py` by path, once. Raises ConfigError where it is missing or lacks one of its two definitions."""
    path = _find(name).resolve()
    if not path.is_file():
        scripts = [f"local/{other.name}" for other in (REPOSITORY / "local").glob("prepare_*.py")]
        raise ConfigError(f"corpus.prepare: '{name}': expected `lhotse:NAME` or a script, found no such file{nearest(name, scripts)}.")
    module_name = f"dropasr_{path.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(specification)  # type: ignore[arg-type]
    # Registered under its name, so that the processes of a pool find its functions.
    sys.modules[module_name] = module
    try:
        specification.loader.exec_module(module)  # type: ignore[union-attr]
    except BaseException:
        del sys.modules[module_name]
        raise
    for definition in ("PrepareOptions", "prepare"):
        if not hasattr(module, definition):
            raise ConfigError(
                f"{path}: expected a definition of `{definition}`, found none. dropasr/data/corpora.py says what a script defines."
            )
    return module


def parse_corpus_options(corpus: CorpusConfig) -> Options:
    """`corpus.options`, typed by the corpus's own options. Raises ConfigError for an unknown key or a value of the wrong type."""
    kind = LhotseOptions if corpus.prepare.startswith("lhotse:") else load_script(corpus.prepare).PrepareOptions
    return parse_options(kind, corpus.options, f"corpus.options ({corpus.prepare})")


def _from_script(corpus: CorpusConfig, folder: Path, nj: int) -> Manifests:
    return load_script(corpus.prepare).prepare(corpus, parse_corpus_options(corpus), folder, nj)


def _recipe(name: str, verb: str) -> Any:
    import lhotse.recipes

    function = getattr(lhotse.recipes, f"{verb}_{name}", None)
    if function is None:
        known = [other.partition("_")[2] for other in dir(lhotse.recipes) if other.startswith(f"{verb}_")]
        raise ConfigError(f"corpus.prepare: lhotse {lhotse.__version__} has no {verb}_{name}{nearest(name, known)}.")
    return function


def _download(corpus: CorpusConfig, name: str, folder: Path) -> Path:
    _LOG.info("Downloading %s to %s", corpus.name, folder)
    try:
        return Path(_recipe(name, "download")(folder) or folder)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"corpus {corpus.name}: lhotse's download_{name} to {folder} failed ({type(error).__name__}: {error}). "
            "Check the network, or download the corpus by hand and give its folder as corpus.corpus_dir (--corpus-dir)."
        ) from None


def _from_lhotse(corpus: CorpusConfig, name: str, folder: Path, nj: int) -> Manifests:
    options = parse_options(LhotseOptions, corpus.options, f"corpus.options ({corpus.prepare})")
    function = _recipe(name, "prepare")
    if corpus.corpus_dir is None:
        root = _download(corpus, name, folder)
    else:
        root = Path(corpus.corpus_dir).expanduser()
    if options.folder and (root / options.folder).is_dir():
        root = root / options.folder
    arguments = dict(options.recipe)
    if "num_jobs" in inspect.signature(function).parameters:
        arguments.setdefault("num_jobs", nj)
    try:
        parts = function(root.resolve(), **arguments)
    except Exception as error:  # the recipes are of many hands; most of their checks are bare asserts
        line = traceback.extract_tb(error.__traceback__)[-1].line
        found = sorted(path.name for path in root.iterdir())
        raise DataError(
            f"corpus {corpus.name}: lhotse's prepare_{name} refused {root} ({type(error).__name__}: {str(error) or line}). "
            f"Found {len(found)} entries there ({', '.join(found[:3])}{', …' if len(found) > 3 else ''}); "
            f"expected {_expected_layout(function)}. Correct corpus.corpus_dir or the corpus."
        ) from error
    return _select(corpus, options, parts)


def _expected_layout(function: Any) -> str:
    """What the docstring of a recipe says about its corpus folder."""
    _, _, text = (inspect.getdoc(function) or "").partition(":param corpus_dir:")
    text = " ".join(text.partition(":param")[0].partition(":return")[0].split()).rstrip(".")
    return text or "the layout of the publisher"


def _select(corpus: CorpusConfig, options: LhotseOptions, parts: dict[str, dict[str, Any]]) -> Manifests:
    from lhotse import RecordingSet, SupervisionSet

    def joined(names: list[str]) -> tuple[list[Any], list[Any]]:
        unknown = [name for name in names if name not in parts]
        if unknown:
            raise ConfigError(f"corpus.options: {corpus.prepare} has no part '{unknown[0]}'{nearest(unknown[0], list(parts))}.")
        chosen = [parts[name] for name in names]
        return [item for part in chosen for item in part["recordings"]], [item for part in chosen for item in part["supervisions"]]

    sets = {"train": joined(options.train_parts), "test": joined(options.test_parts)}
    if options.dev_parts:
        sets["dev"] = joined(options.dev_parts)
    else:
        recordings, supervisions = sets["train"]
        chosen = _carve(corpus, options, supervisions)
        moved = [item for item in supervisions if item.id in chosen]
        kept = [item for item in supervisions if item.id not in chosen]
        for name, part in (("dev", moved), ("train", kept)):
            used = {item.recording_id for item in part}
            sets[name] = ([recording for recording in recordings if recording.id in used], part)
    return {name: (RecordingSet.from_recordings(first), SupervisionSet.from_segments(second)) for name, (first, second) in sets.items()}


def _carve(corpus: CorpusConfig, options: LhotseOptions, supervisions: list[Any]) -> set[str]:
    """The ids that go from train to dev."""
    if options.dev_speakers:
        speakers = {item.speaker for item in supervisions}
        unknown = [speaker for speaker in options.dev_speakers if speaker not in speakers]
        if unknown:
            raise DataError(
                f"corpus {corpus.name}: the speaker '{unknown[0]}' (dev_speakers) is not among the {len(speakers)} speakers "
                "of train. Name others."
            )
        return {item.id for item in supervisions if item.speaker in options.dev_speakers}
    if not 0 < options.dev_utterances < len(supervisions):
        raise DataError(
            f"corpus {corpus.name}: {corpus.prepare} gives no dev set. Set corpus.options.dev_parts, dev_speakers, or dev_utterances "
            f"(1 to {len(supervisions) - 1}; found {options.dev_utterances}), to carve it from train."
        )
    return set(sorted(item.id for item in supervisions)[-options.dev_utterances :])


def _write_cuts(split: Split, path: Path) -> None:
    """Write cuts as lhotse does (JSON lines), with the same bytes for the same cuts."""
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for cut in split.cuts:
                file.write((json.dumps(cut.to_dict(), ensure_ascii=False) + "\n").encode("utf-8"))


def _report(corpus: CorpusConfig, splits: list[Split], lm_text: Path) -> dict[str, Any]:
    sentences = {split.name: split.sentences() for split in splits}
    known = set(sentences["train"])
    in_text = set(lm_text.read_text(encoding="utf-8").splitlines()) if lm_text.exists() else set()
    count = len(sentences["test"])
    return {
        "corpus": corpus.name,
        "note": corpus.note,
        "one_speaker": corpus.one_speaker,
        "sample_rate": corpus.sample_rate,
        "hours": round(sum(cut.duration for split in splits for cut in split.cuts) / 3600, 6),
        "splits": {split.name: split.report() for split in splits},
        "vocabulary": len({word for texts in sentences.values() for text in texts for word in text.split()}),
        "test_sentences_seen": {
            "in_train": sum(text in known for text in sentences["test"]) / count,
            "in_lm_text": sum(text in in_text for text in sentences["test"]) / count,
        },
    }


def _log(report: dict[str, Any]) -> None:
    for name, split in report["splits"].items():
        _LOG.info(
            "%-5s %6d utterances, %6.2f hours, %7d words, %4d speakers, %d of %d dropped, %d words mapped",
            name, split["utterances"], split["hours"], split["words"], split["speakers"], len(split["dropped"]), split["seen"],
            sum(split["mapped_words"].values()),
        )  # fmt: skip
    if report["one_speaker"]:
        _LOG.info("%s has one speaker: train and test share it", report["corpus"])
    if report["note"]:
        _LOG.info("%s: %s", report["corpus"], report["note"])
