"""Every YAML in conf/ against the real entry points, and what a wrong key is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY

from dropasr import stamps
from dropasr.config import Config, load_config, parse_options, read_layers, rows
from dropasr.errors import ConfigError
from dropasr.invocation import check_components, load
from dropasr.methods import makes_smaller
from dropasr.models import build_model
from dropasr.options import parse
from dropasr.report.results import row_hashes
from dropasr.training.rate_search import RateSearch, families_of

CORPORA = sorted((REPOSITORY / "conf").glob("*.yaml"))
MODELS = sorted((REPOSITORY / "conf" / "model").glob("*.yaml"))
METHODS = sorted((REPOSITORY / "conf" / "method").glob("*.yaml"))


RESCORED = ("decode.rescore=nbest", "lang.rescore=true")
CTC = ("train.criterion=ctc", "lang.units=chars")


def identity(path: Path) -> str:
    return path.stem


def configuration(*argv: str) -> Config:
    return load(parse(list(argv)))[0]


@pytest.mark.parametrize("path", CORPORA, ids=identity)
def test_every_corpus_loads(path: Path):
    config = configuration("--conf", str(path))
    check_components(config)
    assert rows(config)[0].kind == "large"
    scheme, _, name = config.corpus.prepare.partition(":")
    if scheme == "lhotse":
        import lhotse.recipes

        assert hasattr(lhotse.recipes, f"prepare_{name}")
    else:
        assert (REPOSITORY / config.corpus.prepare).is_file()


@pytest.mark.parametrize("path", MODELS, ids=identity)
def test_every_model_loads_and_builds(path: Path):
    config = configuration("--model", path.stem)
    net = build_model(config.model, num_features=8, num_outputs=5)
    assert net.num_parameters() > 0


@pytest.mark.parametrize("path", METHODS, ids=identity)
def test_every_method_loads(path: Path):
    values = {"method": path.stem, **read_layers(path)}
    smaller, teacher = makes_smaller(path.stem, values), values.get("teacher") or "dense"
    large = ["--set", f"experiment.large=[{','.join(dict.fromkeys(['dense', teacher]))}]"]
    small = "dense,distilled" if smaller else path.stem
    wanted = [*(["--method", path.stem] if smaller else []), "--set", f"experiment.small=[{small}]"]
    config = configuration(*large, *wanted)
    check_components(config)
    assert path.stem in (config.experiment.compact if smaller else config.experiment.small)


@pytest.mark.parametrize(
    ("extra", "settings", "words"),
    [
        ("decode: {baem: 3}\n", [], ["decode.baem", "did you mean 'beam'"]),
        ("decoed: {beam: 3}\n", [], ["decoed", "did you mean 'decode'"]),
        ("", ["decode.max_activ=3"], ["decode.max_activ", "max_active", "--set decode.max_activ=3"]),
        ("", ["train.epochs=many"], ["train.epochs", "many"]),
        ("", ["train.epochs=0"], ["train.epochs", "0"]),
        ("", ["corpus.sample_rate=44100"], ["corpus.sample_rate", "44100"]),
        ("", ["corpus.extra_tests=[dev]"], ["extra_tests", "none of them train, dev, test or all", "'dev'"]),
        ("", ["corpus.extra_tests=[all]"], ["extra_tests", "none of them train, dev, test or all", "'all'"]),
        ("", ["corpus.extra_tests=[../x]"], ["extra_tests", "names of folders", "'../x'"]),
        ("", ["corpus.text.cases=upper"], ["corpus.text.cases", "did you mean 'case'"]),
        ("methods: {dense_net: {}}\n", [], ["methods.dense_net", "did you mean 'dense'"]),
        ("experiment: {compact: [dropout_compacton]}\n", [], ["dropout_compacton", "did you mean 'dropout_compaction'"]),
        ("", ["lang.order=3", "lang.prune_to=[5]"], ["prune_to", "expected 2 numbers", "[5]"]),
        ("", ["lang.prune_to=[5, 5]", "lang.texts=[a]", "lang.arpa=b"], ["arpa", "lang.texts"]),
        ("experiment: {budgets: [2]}\n", [], ["budgets", "between 0 and 1"]),
        ("experiment: {budgets: [0.25, 0.250000001]}\n", [], ["experiment.budgets: 0.25 stands 2 times"]),
        ("experiment: {large: [dense, dense]}\n", [], ["experiment.large: dense stands 2 times"]),
        ("model: lstm\n", [], ["tiny.yaml: model: expected a section", "'name: lstm'", "found 'lstm'"]),
        ("models: lstm\n", [], ["tiny.yaml: models: expected a section", "found 'lstm'"]),
        ("decode: {beam: 3}\ndecode: {max_active: 20}\n", [], ["tiny.yaml", "'decode' stands twice"]),
        ("decode: {beam: 3, beam: 4}\n", [], ["tiny.yaml", "'beam' stands twice"]),
        ("", ["decode.ctc_scales=[0.5,0]"], ["decode.ctc_scales", "above 0", "[0.5, 0.0]"]),
        ("", ["decode.rescore=nbest"], ["decode.rescore", "set lang.rescore true"]),
        ("", [*RESCORED, "decode.backend=kaldi"], ["decode.rescore", "no lattices", "decode.backend k2"]),
        ("", [*RESCORED, *CTC, "decode.ctc=greedy"], ["decode.rescore", "decode.ctc greedy", "hlg"]),
        ("", [*RESCORED, *CTC, "decode.ctc=h"], ["decode.rescore", "decode.ctc h", "hlg"]),
        ("", ["decode.lm_scales=[0.8]", "decode.backend=kaldi"], ["decode.lm_scales", "no lattices", "decode.backend k2"]),
        ("", ["decode.insertion_penalties=[0, 1]", "decode.backend=kaldi"], ["decode.insertion_penalties", "no lattices"]),
    ],
)
def test_wrong_values_are_named(tiny_yaml, extra: str, settings: list[str], words: list[str]):
    with pytest.raises(ConfigError) as caught:
        load_config(tiny_yaml(extra), settings=settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_empty_section_says_nothing(tiny_yaml):
    assert load_config(tiny_yaml("decode:\n")) == load_config(tiny_yaml())


def test_a_misspelt_key_of_a_model_or_method_is_refused(tiny_yaml):
    with pytest.raises(ConfigError, match="widht.*did you mean 'width'"):
        check_components(load_config(tiny_yaml(), settings=["model.widht=3"]))
    with pytest.raises(ConfigError, match="dense.*tacher.*did you mean 'teacher'"):
        check_components(load_config(tiny_yaml(), settings=["methods.dense.tacher=dense"]))


@pytest.mark.parametrize("settings", [RESCORED, ("decode.lm_scales=[0.8,1.0]",), ("decode.insertion_penalties=[1.0]",)])
def test_lattices_are_asked_of_the_backend_that_auto_stands_for(tiny_yaml, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]):
    config = load_config(tiny_yaml(), settings=list(settings))
    monkeypatch.setattr(stamps, "installed_backends", lambda: ["k2", "kaldi"])
    check_components(config)
    monkeypatch.setattr(stamps, "installed_backends", lambda: ["kaldi"])
    with pytest.raises(ConfigError, match=f"{settings[0].partition('=')[0]}.*lattices.*decode.backend=k2"):
        check_components(config)
    check_components(load_config(tiny_yaml(), settings=[*CTC, "decode.ctc=greedy", "decode.lm_scales=[0.8,1.0]"]))


def test_a_configuration_lies_over_its_base(tmp_path: Path):
    corpus = "corpus: {name: large, prepare: p.py, options: {a: 1, b: [1, 2]}}\n"
    (tmp_path / "large.yaml").write_text(corpus + "train: {epochs: 9, momentum: 0.5}\n")
    (tmp_path / "middle.yaml").write_text("base: large.yaml\ncorpus: {options: {b: [3]}}\n")
    (tmp_path / "small.yaml").write_text("base: middle.yaml\ncorpus: {name: small}\ntrain: {epochs: 2}\n")
    config = load_config(tmp_path / "small.yaml")
    assert (config.corpus.name, config.corpus.prepare, config.corpus.options) == ("small", "p.py", {"a": 1, "b": [3]})
    assert (config.train.epochs, config.train.momentum) == (2, 0.5)
    (tmp_path / "large.yaml").write_text("base: small.yaml\n")
    with pytest.raises(ConfigError, match="small.yaml -> middle.yaml -> large.yaml -> small.yaml"):
        load_config(tmp_path / "small.yaml")
    (tmp_path / "small.yaml").write_text("base: [1]\n")
    with pytest.raises(ConfigError, match="base: expected the name of a YAML file"):
        load_config(tmp_path / "small.yaml")


def test_files_lie_over_a_configuration_in_order_and_below_the_settings(tiny_yaml, tmp_path: Path):
    path = tiny_yaml("train: {epochs: 2, momentum: 0.5}\nexperiment: {budgets: [0.5], compact: [norm_removal]}\n")
    (tmp_path / "below.yaml").write_text("experiment: {budgets: [0.25], large: [dropout]}\nmethods: {dropout: {rate: 0.25}}\n")
    (tmp_path / "first.yaml").write_text("base: below.yaml\nexperiment: {budgets: [0.125]}\ntrain: {epochs: 3, batch_size: 7}\n")
    (tmp_path / "second.yaml").write_text("train: {batch_size: 8}\nmodels: {lstm: {train: {epochs: 9}}}\n")
    overlays = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    config = load_config(path, settings=["train.momentum=0.6"], overlays=overlays)
    assert (config.train.epochs, config.train.batch_size, config.train.momentum) == (3, 8, 0.6)
    assert (config.experiment.budgets, config.experiment.large) == ([0.125], ["dropout"])
    assert config.experiment.compact == ["norm_removal"] and config.methods["dropout"]["rate"] == 0.25
    assert load_config(path, model="lstm", overlays=overlays).train.epochs == 9
    same = ["experiment.budgets=[0.125]", "experiment.large=[dropout]", "methods.dropout.rate=0.25", "train.epochs=3", "train.batch_size=8"]
    assert row_hashes(load_config(path, settings=[*same, "train.momentum=0.6"])) == row_hashes(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainn: {epochs: 3}\n", ["over.yaml", "trainn", "did you mean 'train'"]),
        ("train: {epochs: many}\n", ["over.yaml", "train.epochs", "many"]),
        ("[1, 2]\n", ["over.yaml", "expected 'section: …' lines"]),
        ("base: gone.yaml\n", ["gone.yaml", "no such configuration"]),
    ],
)
def test_wrong_values_of_a_file_laid_over_are_named(tiny_yaml, tmp_path: Path, text: str, words: list[str]):
    (tmp_path / "over.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tiny_yaml(), overlays=[tmp_path / "over.yaml"])
    assert all(word in str(caught.value) for word in words), str(caught.value)


COMPARE = REPOSITORY / "recipes" / "compare"


@pytest.mark.parametrize("model", ["feedforward", "lstm", "blstm", "lstmp"])
@pytest.mark.parametrize("corpus", ["synth_commands", "fsdd", "yesno", "mini_librispeech"])
def test_all_methods_may_stand_in_one_table(corpus: str, model: str):
    config = configuration("--conf", f"conf/{corpus}.yaml", "--model", model, "--with", str(COMPARE / "methods.yaml"))
    check_components(config)
    source = COMPARE / "families.yaml"
    search = parse_options(RateSearch, read_layers(source), str(source))
    without = set() if model == "feedforward" else {name for name in search.families if name.startswith("input_")}  # LSTMs read all inputs
    assert families_of(config, search, str(source)).keys() == search.families.keys() - without
    feedforward, smoke = (
        configuration("--conf", f"conf/{corpus}.yaml", "--model", name, "--with", str(COMPARE / "smoke.yaml"))
        for name in ("feedforward", model)
    )
    check_components(smoke)
    assert smoke.experiment.budgets == [0.125] and "one seed" in smoke.experiment.note
    # A smoke run is of feed-forward nets with all methods, then of LSTMs with what those have not.
    assert {*feedforward.experiment.compact, *smoke.experiment.compact} >= set(config.experiment.compact)


@pytest.mark.parametrize("corpus", sorted(path.stem for path in (COMPARE / "corpora").glob("*.yaml")))
def test_what_one_corpus_has_otherwise_may_stand_in_the_comparison(corpus: str):
    layers = ["--with", str(COMPARE / "methods.yaml"), "--with", str(COMPARE / "corpora" / f"{corpus}.yaml")]
    config = configuration("--conf", f"conf/{corpus}.yaml", *layers)
    check_components(config)
    assert "dropout_compaction" in config.experiment.compact and 0.125 in config.experiment.budgets


@pytest.mark.parametrize("model", ["feedforward", "lstm"])
def test_estimators_may_stand_beside_the_methods_that_remove_by_rank(model: str):
    names = [path.stem for path in METHODS if path.stem.startswith(("compaction_", "criterion_removal"))]
    assert len(names) == 8
    settings = ["--set", f"experiment.compact=[dropout_compaction,norm_removal,{','.join(names)}]"]
    check_components(configuration("--conf", "conf/synth_commands.yaml", "--model", model, *settings))


def test_recurrent_nets_have_one_method_more_and_keep_their_inputs():
    lists = read_layers(COMPARE / "methods.yaml")
    recurrent, forward = lists["models"]["lstm"]["experiment"]["compact"], lists["experiment"]["compact"]
    inputs = [path.stem for path in METHODS if read_layers(path).get("input_power")]
    assert len(inputs) == 4 and "iss_group_lasso" in recurrent
    assert [name for name in recurrent if name != "iss_group_lasso"] == [name for name in forward if name not in inputs]


def test_mini_librispeech_compares_all_methods_that_meet_a_budget():
    of_corpus = read_layers(COMPARE / "corpora" / "mini_librispeech_reduced.yaml")["experiment"]["compact"]
    of_all = read_layers(COMPARE / "methods.yaml")["experiment"]["compact"]
    assert sorted(of_corpus) == sorted(name for name in of_all if not name.endswith("_published"))


def test_every_method_is_compared():
    lists = read_layers(COMPARE / "methods.yaml")
    experiment = lists["experiment"]
    named = {*experiment["large"], *experiment["small"], *experiment["compact"], *lists["models"]["lstm"]["experiment"]["compact"]}
    apart = {"criterion_removal", *(f"compaction_{name}" for name in ("gumbel", "mean_field", "random", "score"))}
    assert {path.stem for path in METHODS} - named == apart, "to compare a method, add its name to recipes/compare/methods.yaml"


def test_settings_win_over_the_files(tiny_yaml):
    config = load_config(tiny_yaml(), settings=["model.width=48", "train.epochs=7", "decode.acoustic_scales=[0.3, 0.4]"])
    assert (config.model["width"], config.train.epochs, config.decode.acoustic_scales) == (48, 7, [0.3, 0.4])


def test_settings_reach_a_model_named_by_an_option(tiny_yaml):
    path = tiny_yaml("model: {name: feedforward, width: 32}\n")
    config = load_config(path, model="lstm", settings=["model.cells=24"])
    assert config.model["name"] == "lstm" and config.model["cells"] == 24 and "width" not in config.model
    assert load_config(path, model="feedforward").model["width"] == 32


def test_sections_that_a_model_brings_along(tiny_yaml):
    """Built-in < `defaults` of the model's file < corpus < `models` of the corpus, those of the base first < --set."""
    extra = """
train: {epochs: 4, learning_rate: 0.07}
models:
  lstm: {train: {epochs: 9, momentum: 0.8}, experiment: {budgets: [0.5]}}
  blstm: {train: {epochs: 6}, model: {cells: 12}}
"""
    path = tiny_yaml(extra)
    plain, lstm, blstm = (load_config(path, model=model) for model in (None, "lstm", "blstm"))
    assert (plain.train.epochs, plain.train.frame_subsampling, plain.train.momentum) == (4, 1, 0.9)
    assert (lstm.train.epochs, lstm.train.momentum, lstm.experiment.budgets) == (9, 0.8, [0.5])
    assert lstm.train.optimiser == "adam" and plain.train.optimiser == "sgd", "from the model's file"
    assert lstm.train.learning_rate == 0.07, "the corpus's file lies over the model's"
    assert (blstm.train.epochs, blstm.train.momentum, blstm.model["cells"], blstm.model["bidirectional"]) == (6, 0.8, 12, True)
    assert "defaults" not in lstm.model and "defaults" not in blstm.model
    assert load_config(path, settings=["model.name=lstm", "train.epochs=2"]).train.epochs == 2
    assert load_config(path, settings=["model.name=lstm", "models.lstm.train.epochs=3"]).train.epochs == 3


def test_a_file_laid_over_wins_over_the_sections_for_a_model(tiny_yaml, tmp_path: Path):
    path = tiny_yaml("train: {epochs: 4}\nmodels: {lstm: {train: {epochs: 9, momentum: 0.8}, experiment: {budgets: [0.5]}}}\n")
    (tmp_path / "over.yaml").write_text("experiment: {budgets: [0.125]}\ntrain: {epochs: 5}\nmodels: {blstm: {train: {epochs: 6}}}\n")
    lstm, blstm = (load_config(path, model=model, overlays=[tmp_path / "over.yaml"]) for model in ("lstm", "blstm"))
    assert (lstm.experiment.budgets, lstm.train.epochs, lstm.train.momentum) == ([0.125], 5, 0.8)
    assert (blstm.experiment.budgets, blstm.train.epochs, blstm.train.momentum) == ([0.125], 6, 0.8)


def test_a_file_wins_over_the_sections_for_a_model_of_its_base(tiny_yaml, tmp_path: Path):
    base = tiny_yaml("train: {epochs: 4}\nmodels: {lstm: {train: {epochs: 9, momentum: 0.8}}}\n")
    path = tmp_path / "reduced.yaml"
    path.write_text(f"base: {base.name}\ntrain: {{epochs: 2}}\nmodels: {{blstm: {{train: {{epochs: 3}}}}}}\n", encoding="utf-8")
    plain, lstm, blstm = (load_config(path, model=model).train for model in (None, "lstm", "blstm"))
    assert (plain.epochs, lstm.epochs, blstm.epochs) == (2, 2, 3)
    assert (plain.momentum, lstm.momentum, blstm.momentum) == (0.9, 0.8, 0.8)


def test_a_model_that_is_its_own_base_is_refused(tiny_yaml):
    path = tiny_yaml()
    (path.parent / "model").mkdir()
    (path.parent / "model" / "mine.yaml").write_text("base: mine.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="leads back to this file"):
        load_config(path, model="mine")
    (path.parent / "model" / "mine.yaml").write_text("model: lstm\ndefaults: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mine.yaml: defaults: expected sections"):
        load_config(path, model="mine")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("models: {lsmt: {}}", "models.lsmt: there is no conf/model/lsmt.yaml.*did you mean 'lstm'"),
        ("models: {lstm: {corpus: {name: x}}}", "models.lstm: expected sections such as train and decode"),
        ("models: {lstm: 3}", "models.lstm: expected sections such as train and decode"),
    ],
)
def test_wrong_sections_of_models_are_refused(tiny_yaml, extra: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(tiny_yaml(extra))


def test_acoustic_scales_follow_the_frame_rate(tiny_yaml):
    settings = ["decode.acoustic_scales=[0.12, 0.1]"]
    assert load_config(tiny_yaml(), settings=settings).scales == [0.1, 0.12]
    assert load_config(tiny_yaml(), settings=[*settings, "train.frame_subsampling=3"]).scales == [0.3, 0.36]


def test_relative_paths_are_the_callers_in_options_and_the_repositorys_in_files(tiny_yaml, tmp_path: Path):
    path = tiny_yaml()
    text = path.read_text(encoding="utf-8").replace("lexicon: {KEN: K EH N, LO: L OW}", "lexicon: local/words.txt")
    path.write_text(text, encoding="utf-8")
    config, paths = load(parse(["--conf", "tiny.yaml", "--set", "lang.text=text.txt", "--exp-dir", "exp"], base=tmp_path))
    assert config.lang.lexicon == str(REPOSITORY / "local/words.txt")
    assert config.lang.text == str(tmp_path / "text.txt")
    assert paths.exp_dir == tmp_path / "exp"


def test_a_tilde_is_the_home_folder(tiny_yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tiny_yaml()
    path.write_text(path.read_text(encoding="utf-8").replace("{name: tiny,", "{name: tiny, corpus_dir: ~/corpus,"), encoding="utf-8")
    config, _ = load(parse(["--conf", "tiny.yaml", "--set", "lang.text=~/text.txt"], base=tmp_path))
    assert config.corpus.corpus_dir == str(tmp_path / "home" / "corpus")
    assert config.lang.text == str(tmp_path / "home" / "text.txt")


def test_texts_and_dictionary_lie_with_the_corpus(tiny_yaml, tmp_path: Path):
    corpus = tmp_path / "corpora" / "Corpus"
    corpus.mkdir(parents=True)
    for file in (corpus / "in.txt", corpus.parent / "beside.txt", corpus.parent / "dict"):
        file.write_text("a\n")
    path = tiny_yaml()
    text = path.read_text(encoding="utf-8").replace("lang: {", "lang: {texts: [in.txt, beside.txt, none.txt], dictionary: dict, ")
    path.write_text(text, encoding="utf-8")
    config, _ = load(parse(["--conf", "tiny.yaml", "--corpus-dir", "corpora/Corpus"], base=tmp_path))
    assert config.lang.texts == [str(corpus / "in.txt"), str(corpus.parent / "beside.txt"), str(REPOSITORY / "none.txt")]
    assert config.lang.dictionary == str(corpus.parent / "dict")
    settings = ["--set", "lang.texts=[mine.txt]", "--set", "lang.dictionary=cmudict"]
    config, _ = load(parse(["--conf", "tiny.yaml", "--corpus-dir", "corpora/Corpus", *settings], base=tmp_path))
    assert config.lang.texts == [str(tmp_path / "mine.txt")] and config.lang.dictionary == "cmudict"


def test_kaldi_directories_are_paths_like_others(tmp_path: Path):
    arguments = ["--conf", str(REPOSITORY / "conf" / "kaldi_dir.yaml"), "--set", "corpus.options.train=data/train"]
    options = load(parse(arguments, base=tmp_path))[0].corpus.options
    assert options == {"train": str(tmp_path / "data/train"), "dev": str(REPOSITORY / "dev"), "test": str(REPOSITORY / "test")}
    inside = load(parse([*arguments, "--corpus-dir", str(tmp_path)], base=tmp_path))[0].corpus.options
    assert inside == {"train": "data/train", "dev": "dev", "test": "test"}
