"""Data sets that ClearML keeps, from a package that stands for the SDK: its own does not give any without a server."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path

import pytest

from maskrcnn_benchmark.apps import clearml_data

ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A package clearml whose data set is a folder; its list says what was asked for."""
    source = tmp_path / "source"
    (source / "train2017").mkdir(parents=True)
    (source / "train2017" / "1.jpg").write_text("new")
    asked = []

    class Dataset:
        def __init__(self, **keywords):
            asked.append(keywords)

        get = classmethod(lambda cls, **keywords: cls(**keywords))

        def get_local_copy(self):
            return str(source)

        def get_mutable_local_copy(self, folder, overwrite=None):
            asked.append((folder, overwrite))
            if os.path.isdir(folder) and os.listdir(folder) and not overwrite:
                raise ValueError(f"Target folder {folder} already contains files")
            shutil.copytree(source, folder, dirs_exist_ok=True)
            return folder

    monkeypatch.setitem(sys.modules, "clearml", types.SimpleNamespace(Dataset=Dataset))
    return asked


def test_a_data_set_is_fetched_once(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = clearml_data.make_data_folder(ID, "data/coco")
    assert folder == str(tmp_path / "data" / "coco")
    assert Path(folder, "train2017", "1.jpg").read_text() == "new"
    assert server == [{"dataset_id": ID}, (folder, None)]
    assert clearml_data.make_data_folder(ID, "data/coco") == folder
    assert len(server) == 2


def test_a_filled_folder_is_taken_unless_it_is_to_be_replaced(server, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "old").write_text("")
    assert clearml_data.make_data_folder(ID, str(folder)) == str(folder)
    assert server == []
    clearml_data.make_data_folder(ID, str(folder), overwrite=True)
    assert server == [{"dataset_id": ID}, (str(folder), True)]


def test_a_fetch_that_was_cut_short_is_done_again(server, tmp_path, monkeypatch):
    folder = tmp_path / "data"

    def half(self, target):
        Path(target).mkdir()
        Path(target, "half").write_text("")
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["clearml"].Dataset, "get_mutable_local_copy", half)
        with pytest.raises(ValueError, match=f"{ID}.*connection lost"):
            clearml_data.make_data_folder(ID, str(folder))
    clearml_data.make_data_folder(ID, str(folder))
    assert (folder / "train2017" / "1.jpg").exists()


def test_the_folder_of_another_data_set_is_not_taken_for_this_one(server, tmp_path):
    clearml_data.make_data_folder(ID, str(tmp_path / "data"))
    with pytest.raises(ValueError, match=f"holds the data set {ID}, not other"):
        clearml_data.make_data_folder("other", str(tmp_path / "data"))


def test_each_key_alone(server, tmp_path):
    assert clearml_data.make_data_folder("", "") == ""
    assert clearml_data.make_data_folder("", str(tmp_path)) == str(tmp_path)
    assert server == []
    assert clearml_data.make_data_folder(ID, "") == str(tmp_path / "source")
    with pytest.raises(FileNotFoundError, match="give a dataset_id"):
        clearml_data.make_data_folder("", str(tmp_path / "nothing"))


def test_without_the_package_a_data_set_cannot_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "clearml", None)
    with pytest.raises(ImportError, match=r"maskrcnn_benchmark\[clearml\]"):
        clearml_data.make_data_folder(ID, str(tmp_path / "data"))
