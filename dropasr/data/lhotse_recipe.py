"""Corpora with a recipe in lhotse: download, prepare, and the choice of parts and speakers for each split."""

from __future__ import annotations

import inspect
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dropasr.config import CorpusConfig, Options, nearest
from dropasr.errors import ConfigError, DataError
from dropasr.log import get_logger

if TYPE_CHECKING:
    from lhotse import RecordingSet, SupervisionSet

    Manifests = dict[str, tuple[RecordingSet, SupervisionSet]]

_LOG = get_logger(__name__)


class LhotseOptions(Options):
    """Options of a corpus with a recipe in lhotse."""

    folder: str = ""
    """Name of the corpus's own folder; looked for inside `corpus_dir`, which may also be that folder itself."""
    train_parts: list[str] = Field(default=["train"], min_length=1)
    """Parts of the recipe's result that make the training set."""
    dev_parts: list[str] = []
    """Parts that make the development set; without them it is carved from the training set."""
    test_parts: list[str] = ["test"]
    """Parts that make the test set; where the list is empty, it is carved from the training set."""
    extra_parts: dict[str, list[str]] = {}
    """Parts that make each of `corpus.extra_tests`; an extra test that is not named here is the part of its own name."""
    dev_speakers: list[str] = []
    """Speakers that go from the training set to the development set, where there are no `dev_parts`."""
    test_speakers: list[str] = []
    """Speakers that go from the training set to the test set, where there are no `test_parts`."""
    dev_utterances: int = Field(default=0, ge=0)
    """Last utterances of the training set, by id, that go to the development set, where neither parts nor speakers are named for it."""
    recipe: dict[str, Any] = {}
    """Further arguments of lhotse's prepare function."""
    download: dict[str, Any] = {}
    """Further arguments of lhotse's download function."""

    def parts(self, corpus: CorpusConfig) -> dict[str, list[str]]:
        """The parts of every split that has parts of its own."""
        named = {"train": self.train_parts, "dev": self.dev_parts, "test": self.test_parts}
        named.update({name: self.extra_parts.get(name, [name]) for name in corpus.extra_tests})
        return {name: parts for name, parts in named.items() if parts}


def find(name: str, verb: str) -> Any:
    """`prepare_NAME` or `download_NAME` of lhotse. Raises ConfigError where it has none."""
    import lhotse.recipes

    function = getattr(lhotse.recipes, f"{verb}_{name}", None)
    if function is None:
        known = [other.partition("_")[2] for other in dir(lhotse.recipes) if other.startswith(f"{verb}_")]
        raise ConfigError(f"corpus.prepare: lhotse {lhotse.__version__} has no {verb}_{name}{nearest(name, known)}.")
    return function


def _download(corpus: CorpusConfig, options: LhotseOptions, name: str, folder: Path) -> Path:
    _LOG.info("Downloading %s to %s", corpus.name, folder)
    try:
        return Path(find(name, "download")(folder, **options.download) or folder)
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"corpus {corpus.name}: lhotse's download_{name} to {folder} failed ({type(error).__name__}: {error}). "
            "Check the network, or download the corpus by hand and give its folder as corpus.corpus_dir (--corpus-dir)."
        ) from None


def load(corpus: CorpusConfig, options: LhotseOptions, name: str, folder: Path, nj: int) -> Manifests:
    """Every split of `corpus.splits` as lhotse's prepare_NAME reads it, downloaded to `folder` first where no copy is given.

    Raises DataError where the corpus cannot be had or does not have the publisher's layout, ConfigError for an unknown recipe or part.
    """
    function = find(name, "prepare")
    root = Path(corpus.corpus_dir).expanduser() if corpus.corpus_dir is not None else _download(corpus, options, name, folder)
    if options.folder and (root / options.folder).is_dir():
        root = root / options.folder
    parameters = inspect.signature(function).parameters
    arguments = dict(options.recipe)
    if "num_jobs" in parameters:
        arguments.setdefault("num_jobs", nj)
    if "dataset_parts" in parameters:
        wanted = {part: split for split, parts in options.parts(corpus).items() for part in parts}
        _check_folders(corpus, wanted, root)
        arguments.setdefault("dataset_parts", list(wanted))
    with tempfile.TemporaryDirectory() as scratch:
        # Recipes that insist on writing manifests read old ones from there again: a fresh folder has none.
        if "output_dir" in parameters and parameters["output_dir"].default is inspect.Parameter.empty:
            arguments.setdefault("output_dir", scratch)
        try:
            result = function(root.resolve(), **arguments)
        except Exception as error:  # the recipes are of many hands; most of their checks are bare asserts
            line = traceback.extract_tb(error.__traceback__)[-1].line
            raise DataError(
                f"corpus {corpus.name}: lhotse's prepare_{name} refused {root} ({type(error).__name__}: {str(error) or line}). "
                f"Found {_entries(root)}; expected {_expected_layout(function)}. Correct corpus.corpus_dir or the corpus."
            ) from error
        return _select(corpus, options, _flat(result), root)


def _check_folders(corpus: CorpusConfig, wanted: dict[str, str], root: Path) -> None:
    """Where parts are folders of the corpus, all parts (with the split that each is for) have to be there; lhotse says less."""
    absent = [part for part in wanted if not (root / part).is_dir()]
    if 0 < len(absent) < len(wanted):
        raise DataError(_no_part(corpus, absent[0], wanted[absent[0]], root))


def _no_part(corpus: CorpusConfig, part: str, split: str, root: Path) -> str:
    remedy = "leave it out of corpus.extra_tests" if split in corpus.extra_tests else "name other parts in corpus.options"
    return f"corpus {corpus.name}: the part '{part}' ({split}) has no utterances in {root}; found {_entries(root)}. Add it, or {remedy}."


def _entries(root: Path) -> str:
    found = sorted(path.name for path in root.iterdir())
    return f"{len(found)} entries there ({', '.join(found[:3])}{', …' if len(found) > 3 else ''})"


def _expected_layout(function: Any) -> str:
    """What the docstring of a recipe says about its corpus folder, the first parameter."""
    first = next(iter(inspect.signature(function).parameters))
    _, _, text = (inspect.getdoc(function) or "").partition(f":param {first}:")
    text = " ".join(text.partition(":param")[0].partition(":return")[0].split()).rstrip(".")
    return text or "the layout of the publisher"


def _flat(result: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """The parts of a recipe's result; those of nested results are named `OUTER/INNER`, such as `en/train`."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in result.items():
        if "supervisions" in value:
            parts[f"{prefix}{name}"] = value
        else:
            parts.update(_flat(value, f"{prefix}{name}/"))
    return parts


def _select(corpus: CorpusConfig, options: LhotseOptions, parts: dict[str, dict[str, Any]], root: Path) -> Manifests:
    """The splits, joined from the parts that the options name, or carved from train."""
    from lhotse import RecordingSet, SupervisionSet

    sets: dict[str, tuple[list[Any], list[Any]]] = {}
    for split, names in options.parts(corpus).items():
        for name in names:
            if name not in parts:
                raise ConfigError(f"corpus.options: {corpus.prepare} has no part '{name}' ({split}){nearest(name, list(parts))}.")
            if not len(parts[name]["supervisions"]):
                raise DataError(_no_part(corpus, name, split, root))
        chosen = [parts[name] for name in names]
        sets[split] = (
            [item for part in chosen for item in part["recordings"]],
            [item for part in chosen for item in part["supervisions"]],
        )
    for split in ("test", "dev"):
        if split not in sets:
            recordings, supervisions = sets["train"]
            carved = _carved_ids(corpus, options, split, supervisions)
            for name, part in (
                (split, [item for item in supervisions if item.id in carved]),
                ("train", [item for item in supervisions if item.id not in carved]),
            ):
                used = {item.recording_id for item in part}
                sets[name] = ([recording for recording in recordings if recording.id in used], part)
    return {name: (RecordingSet.from_recordings(first), SupervisionSet.from_segments(second)) for name, (first, second) in sets.items()}


def _carved_ids(corpus: CorpusConfig, options: LhotseOptions, split: str, supervisions: list[Any]) -> set[str]:
    """The ids that go from train to dev or test."""
    chosen = options.dev_speakers if split == "dev" else options.test_speakers
    if chosen:
        speakers = {item.speaker for item in supervisions}
        unknown = [speaker for speaker in chosen if speaker not in speakers]
        if unknown:
            raise DataError(
                f"corpus {corpus.name}: the speaker '{unknown[0]}' ({split}_speakers) is not among the {len(speakers)} speakers "
                "left in train. Name others."
            )
        return {item.id for item in supervisions if item.speaker in chosen}
    if split == "test":
        raise DataError(f"corpus {corpus.name}: set corpus.options.test_parts, or test_speakers to carve the test set from train.")
    if not 0 < options.dev_utterances < len(supervisions):
        raise DataError(
            f"corpus {corpus.name}: {corpus.prepare} gives no dev set. Set corpus.options.dev_parts, dev_speakers, or dev_utterances "
            f"(1 to {len(supervisions) - 1}; found {options.dev_utterances}), to carve it from train."
        )
    return set(sorted(item.id for item in supervisions)[-options.dev_utterances :])
