from __future__ import annotations

import json

import kaldifst
import numpy as np
import pytest
from package_case import write_package

from dropasr.decoding.faster import FasterSearch
from dropasr.errors import DataError, DropasrError
from dropasr.files import hash_of
from dropasr.lang.graph_kaldi import weighted
from dropasr.runtime.package import Package


@pytest.fixture
def folder(tmp_path):
    return write_package(tmp_path / "package")


def test_a_package_is_read_as_it_was_written(folder):
    package = Package.read(folder)
    assert package.words[1:3] == ["HIGH", "LOW"] and package.units.num_units == 5
    assert package.lexicon.entries["LOW"] == [["L1", "L2"]] and package.search.beam == 12
    assert np.allclose(np.exp(package.log_prior), 0.2)


@pytest.mark.parametrize("name", ["graph.fst", "words.txt", "units.json", "lexicon.txt", "search.json", "model.onnx", "model.json"])
def test_a_damaged_or_missing_file_is_refused_by_name(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(DropasrError, match=f"{name}: the file is damaged: .*dropasr package"):
        Package.read(folder)
    (folder / name).unlink()
    with pytest.raises(DropasrError, match=f"{name}: the file is missing"):
        Package.read(folder)


def test_a_changed_list_another_format_and_other_folders(folder, tmp_path):
    value = json.loads((folder / "package.json").read_text())
    value["files"]["words.txt"] = "0" * 64
    (folder / "package.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"package\.json: the file is damaged or was changed"):
        Package.read(folder)
    content = {"format_version": 99, "files": {}}
    (folder / "package.json").write_text(json.dumps({**content, "about_sha256": hash_of(content)}))
    with pytest.raises(DataError, match="expected format 1, found 99"):
        Package.read(folder)
    (folder / "package.json").unlink()
    with pytest.raises(DataError, match="an exported net without graph and words"):
        Package.read(folder)
    with pytest.raises(DataError, match="expected the folder of a package, found none"):
        Package.read(tmp_path / "nowhere")


def test_weights_of_the_search_go_into_the_graph(folder):
    """A path costs the scale times what it cost, and the penalty for each word, with the acoustic scores as they were."""
    graph = Package.read(folder).graph
    changed = weighted(graph, 2.0, 0.25)
    before, after = (
        sorted((arc.ilabel, arc.olabel, arc.nextstate, arc.weight.value) for arc in kaldifst.ArcIterator(fst, 0))
        for fst in (graph, changed)
    )
    assert [item[:3] for item in before] == [item[:3] for item in after] and changed.num_states == graph.num_states
    scores = np.full((8, 5), -1.0, np.float32)
    for frame, unit in enumerate([0, 3, 4, 0, 1, 2, 2, 0]):
        scores[frame, unit] = 9.0
    plain, other = (FasterSearch(fst, 100.0, 1000).decode(scores) for fst in (graph, changed))
    assert plain.labels == other.labels and len(plain.labels) == 2 and plain.complete
    acoustic = 8 * 9.0
    assert other.score - acoustic == pytest.approx(2.0 * (plain.score - acoustic) - 2 * 0.25, abs=1e-4)
