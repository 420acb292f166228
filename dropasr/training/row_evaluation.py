"""One row of stage 7, from its first part to its scores."""

from __future__ import annotations

import datetime
import json
from typing import Any

from dropasr.config import Config, Row, system_name
from dropasr.data.store import FrameStore
from dropasr.data.text import Normaliser
from dropasr.decoding.likelihoods import prior_text
from dropasr.decoding.search import PLAIN, Weights, search_name
from dropasr.files import hash_of, read_json, write_json, write_text
from dropasr.log import get_logger
from dropasr.paths import Paths
from dropasr.scoring.wer import WerResult, alignment_text, character_errors, score
from dropasr.training.decode_parts import Part, Setting, Transcripts, divide
from dropasr.training.kept_parts import KeptParts

logger = get_logger(__name__)


def evaluation_sets(config: Config) -> list[str]:
    """`test`, then the further test sets."""
    return ["test", *config.corpus.extra_tests]


def net_identity(paths: Paths, row: str) -> str:
    """What the net of a row was trained from."""
    return read_json(paths.net(row) / "summary.json")["config_hash"]


def _figures(result: WerResult, store: FrameStore) -> dict[str, Any]:
    speakers = dict(zip(store.ids, store.speakers))
    utterances = []
    for item in result.utterances:
        characters, wrong = character_errors(item.reference, item.hypothesis)
        counts = {"words": item.words, "sub": item.substitutions, "del": item.deletions, "ins": item.insertions}
        utterances.append({"id": item.id, "speaker": speakers[item.id], **counts, "characters": characters, "character_errors": wrong})
    characters, wrong = (sum(item[key] for item in utterances) for key in ("characters", "character_errors"))
    return {
        "wer": result.wer,
        "words": result.words,
        "errors": result.errors,
        "sub": result.substitutions,
        "del": result.deletions,
        "ins": result.insertions,
        "cer": 100.0 * wrong / characters,
        "characters": characters,
        "character_errors": wrong,
        "utterances": utterances,
    }


class RowEvaluation:
    """One row from its first part to its scores: tune on dev, decode dev with what was chosen if no search has done so, then test.

    Of the acoustic scales the two in the middle are tried, then neighbours of the best until it has none that is untried.
    """

    def __init__(self, config: Config, paths: Paths, row: Row, identity: str, stores: dict[str, FrameStore], least: int) -> None:
        self.config, self.paths, self.row, self.identity = config, paths, row, identity
        weights = read_json(paths.net(row.name) / "model.json")["sha256"]
        self.kept = KeptParts(paths.score_parts(row.name), hash_of([weights, identity]))
        self._stores = stores
        self._normalise = Normaliser(config.corpus.text)
        self._divided = {split: divide(store, least) for split, store in stores.items()}
        self._found: dict[str, dict[Setting, Transcripts]] = {}
        self._tuned: dict[Setting, WerResult] = {}
        self._chosen: Setting | None = None
        self._waiting = 0

    @property
    def grid(self) -> list[Setting]:
        """All that may be tried on dev."""
        options = self.config.decode
        weights = [Weights(scale, penalty) for scale in sorted(options.lm_scales) for penalty in sorted(options.insertion_penalties)]
        return [Setting(scale, item) for scale in self.config.scales for item in weights]

    @property
    def total(self) -> int:
        """Parts in all, those included that are needed only where the best scale is far off or the chosen weights are not plain."""
        dev, scales = len(self._divided["dev"]), len(self.config.scales)
        return sum(map(len, self._divided.values())) + dev * (max(0, scales - 2) + self._may_confirm)

    @property
    def _may_confirm(self) -> bool:
        return any(setting.weights != PLAIN for setting in self.grid)

    def start(self) -> list[Part]:
        """The parts to begin with."""
        scales = self.config.scales
        middle = (len(scales) - 1) // 2
        return self._tune(scales[middle : middle + 2])

    def _tune(self, scales: list[float]) -> list[Part]:
        return self._parts(["dev"], [setting for setting in self.grid if setting.acoustic_scale in scales], tune=True)

    def _neighbours(self) -> list[float]:
        """Scales beside the best ones that were not tried: the best of all, and the best with plain weights, which may be fallen back
        on."""
        scales, tried = self.config.scales, {setting.acoustic_scale for setting in self._tuned}
        errors, best = {setting: self._errors(result) for setting, result in self._tuned.items()}, set()
        for settings in (list(errors), [setting for setting in errors if setting.weights == PLAIN]):
            least = min((errors[setting] for setting in settings), default=None)
            best |= {scales.index(setting.acoustic_scale) for setting in settings if errors[setting] == least}
        return [scale for place, scale in enumerate(scales) if scale not in tried and best & {place - 1, place + 1}]

    def _parts(self, splits: list[str], settings: list[Setting], tune: bool) -> list[Part]:
        self._found = {split: {} for split in splits}
        parts = [Part(self.row.name, split, positions, tuple(settings), tune) for split in splits for positions in self._divided[split]]
        self._waiting = len(parts)
        return parts

    def done(self, part: Part, found: dict[Setting, Transcripts]) -> list[Part]:
        """Take in the words of one part; the parts that become possible by it."""
        for setting, words in found.items():
            self._found[part.split].setdefault(setting, {}).update(words)
        self._waiting -= 1
        if self._waiting:
            return []
        if part.tune:
            self._tuned.update({setting: self._score("dev", setting) for setting in self._found["dev"]})
            further = self._neighbours()
            if further:
                return self._tune(further)
            self._chosen = self._choose()
            if self._chosen.weights != PLAIN:
                return self._parts(["dev"], [self._chosen], tune=False)
        elif part.split == "dev":
            self._confirm()
        else:
            self._write()
            return []
        log_test_evaluation(self.paths, "begin", {**self._about(), "sets": evaluation_sets(self.config)})
        assert self._chosen is not None
        return self._parts(evaluation_sets(self.config), [self._chosen], tune=False)

    def _score(self, split: str, setting: Setting) -> WerResult:
        store = self._stores[split]
        words = {name: self._normalise.words(found) for name, found in self._found[split][setting].items()}
        return score(dict(zip(store.ids, store.texts)), words)

    def _errors(self, result: WerResult) -> int:
        if self.config.corpus.error_rate == "word":
            return result.errors
        return sum(character_errors(item.reference, item.hypothesis)[1] for item in result.utterances)

    def _choose(self, plain: bool = False) -> Setting:
        """The best setting on dev; of those that dev cannot tell apart, the middle one is the safest."""
        tuned = {setting: self._tuned[setting] for setting in self.grid if setting in self._tuned}
        errors = {setting: self._errors(result) for setting, result in tuned.items() if not plain or setting.weights == PLAIN}
        level = [setting for setting, wrong in errors.items() if wrong == min(errors.values())]
        return level[len(level) // 2]

    def _confirm(self) -> None:
        """Lattices do not hold what other weights would have found: figures are those of a search with the chosen weights, and where
        plain ones are no worse after all, they are taken."""
        assert self._chosen is not None
        self._tuned[self._chosen] = self._score("dev", self._chosen)
        if any(setting.weights == PLAIN for setting in self.grid):
            plain = self._choose(plain=True)
            if self._errors(self._tuned[plain]) <= self._errors(self._tuned[self._chosen]):
                self._chosen = plain

    def _about(self) -> dict[str, Any]:
        assert self._chosen is not None
        about = {"row": self.row.name, "system": system_name(self.config), "acoustic_scale": self._chosen.acoustic_scale}
        return {**about, "config_hash": net_identity(self.paths, self.row.name)}

    def _write(self) -> None:
        assert self._chosen is not None
        options, weights = self.config.decode, self._chosen.weights
        results = {name: self._score(name, self._chosen) for name in evaluation_sets(self.config)}
        figures = {name: _figures(result, self._stores[name]) for name, result in results.items()}
        best: dict[str, float] = {}
        for setting, result in sorted(self._tuned.items(), key=lambda item: item[0].acoustic_scale):
            scale = f"{setting.acoustic_scale:g}"
            best[scale] = min(best.get(scale, result.wer), result.wer)
        value = {
            "row": self.row.name,
            "net": net_identity(self.paths, self.row.name),
            "decoding": self.identity,
            "acoustic_scale": self._chosen.acoustic_scale,
            "lm_scale": weights.lm_scale,
            "insertion_penalty": weights.insertion_penalty,
            "prior": prior_text(self.config),
            "scales": best,
            "tuning": [[s.acoustic_scale, s.weights.lm_scale, s.weights.insertion_penalty, r.wer] for s, r in self._tuned.items()],
            "dev": _figures(self._tuned[self._chosen], self._stores["dev"]),
            "test": figures.pop("test"),
            "extra": figures,
            "backend": search_name(self.config),
            "beam": options.beam,
            "max_active": options.max_active,
            "rescore": options.rescore,
            "frame_subsampling": self.config.train.frame_subsampling,
            "frame_skip": options.frame_skip,
        }
        for name, result in results.items():
            suffix = ".alignments.txt" if name == "test" else f".{name}.alignments.txt"
            write_text(self.paths.scores(self.row.name).with_suffix(suffix), alignment_text(result))
        write_json(self.paths.scores(self.row.name), value)
        self.kept.clear()
        ends = {name: {"wer": result.wer, "words": result.words} for name, result in results.items()}
        log_test_evaluation(self.paths, "end", {**self._about(), **ends["test"], "sets": ends})
        _tell(value)


def _tell(figures: dict[str, Any]) -> None:
    dev, test = figures["dev"], figures["test"]
    tuned = " ".join(f"{scale}: {wer:.2f}" for scale, wer in figures["scales"].items())
    weights = (
        ""
        if (figures["lm_scale"], figures["insertion_penalty"]) == (1, 0)
        else (f", LM scale {figures['lm_scale']:g}, insertion penalty {figures['insertion_penalty']:g}")
    )
    extra = "".join(f", {name} {item['wer']:.2f} %" for name, item in figures["extra"].items())
    logger.info(
        f"{figures['row']}: dev WER by acoustic scale {tuned}{weights}; test WER {test['wer']:.2f} % "
        f"({test['errors']} of {test['words']} words: {test['sub']} substituted, {test['del']} deleted, "
        f"{test['ins']} inserted), CER {test['cer']:.2f} %{extra}; dev {dev['wer']:.2f} %"
    )


def log_test_evaluation(paths: Paths, event: str, about: dict[str, Any]) -> None:
    """Append one line: `begin` before test is decoded, so that a crashed evaluation counts too, and `end` with the figures."""
    time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    line = {"event": event, "time": time, "model": paths.model, "seed": paths.seed, **about}
    paths.test_log.parent.mkdir(parents=True, exist_ok=True)
    with open(paths.test_log, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
