"""Entries of DATASETS.CUSTOM: which format an entry is in, and whether its keys are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yacs.config import CfgNode


@dataclass(frozen=True)
class EntryForm:
    """One way to name a data set in an entry.

    Attributes:
        format: what the key ``format`` of an entry says.
        mark: the key by which an entry is recognised.
        factory: the class in ``data.datasets`` that reads it.
        needed: keys that must be there, ``mark`` among them.
        optional: keys that may be there, beside ``COMMON_KEYS``.
    """

    format: str
    mark: str
    factory: str
    needed: frozenset[str]
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        keys = sorted(self.needed, key=lambda key: (key == self.mark, key))
        return f"{self.format} ({', '.join(keys)})"


def _form(name: str, mark: str, factory: str, needed: str, optional: str = "") -> EntryForm:
    return EntryForm(name, mark, factory, frozenset((mark, *needed.split())), frozenset(optional.split()))


# Where an entry has the marks of two forms, it is the first one, and the other key is unknown to it.
FORMS = (
    _form("coco", "ann_file", "COCODataset", "img_dir"),
    _form("voc", "xml_dir", "VOCXmlDataset", "img_dir", "classes use_difficult"),
    _form("labelme", "json_dir", "LabelmeDataset", "", "img_dir classes"),
    _form("yolo", "data_yaml", "YOLODataset", "split"),
    _form("yolo", "txt_dir", "YOLODataset", "img_dir classes"),
    _form("instance_png", "mask_dir", "InstancePNGDataset", "img_dir", "classes mask_suffix mapping_file"),
    _form("cityscapes", "ann_dir", "CityScapesDataset", "img_dir split", "mode min_area mini"),
    _form("voc", "data_dir", "PascalVOCDataset", "split", "use_difficult classes"),
)
SHAPES = EntryForm(
    "shapes", "root", "shapes", frozenset(("root", "split", "num_images")), frozenset(("seed", "image_size"))
)
# Keys that go with every format but "shapes": which images of the data are taken.
COMMON_KEYS = frozenset(("keep_background", "list_file", "val_fraction"))
# Keys whose values are paths; "classes" may be one.
PATH_KEYS = (
    "img_dir", "root", "ann_file", "ann_dir", "data_dir", "xml_dir", "json_dir", "txt_dir", "mask_dir", "data_yaml",
    "list_file", "mapping_file",
)  # fmt: skip
_SPLITS = ("train", "val")
# Marks of forms that say where images and annotations lie; the others name their folders.
_WHOLE_LAYOUTS = ("data_yaml", "data_dir")


def known_formats() -> str:
    """The formats with their keys, for messages."""
    return ", ".join(map(str, FORMS))


def custom_entries(cfg: CfgNode) -> dict[str, dict[str, Any]]:
    """Return the entries of DATASETS.CUSTOM by name; raises ValueError for one that is incomplete or given twice."""
    entries: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(cfg.DATASETS.CUSTOM):
        place = f"DATASETS.CUSTOM[{index}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{place} must be a mapping with name, img_dir and ann_file, but is {entry!r}")
        entry = complete_entry(entry, place)
        if entry["name"] in entries:
            raise ValueError(f"{place}: the name {entry['name']!r} is given twice")
        entries[entry["name"]] = entry
    return entries


def complete_entry(entry: dict[str, Any], place: str) -> dict[str, Any]:
    """Check an entry, and return it with its ``factory`` and with the keys of its form in place of their short forms.

    With ``format`` an entry may call the folder of its annotations ``ann_dir``, and leave it out where they lie beside
    the images (labelme) or in the folder ``labels`` beside the folder ``images`` (yolo).

    Args:
        entry: as in DATASETS.CUSTOM.
        place: the entry's own, for messages.

    Raises:
        ValueError: it is incomplete, has a key too many, or its format is not known.
    """
    form = form_of(entry, place)
    if form is None and "factory" in entry and "name" in entry:  # a class of the user's own takes what it takes
        return dict(entry)
    given = dict(entry)
    if form is not None and given.pop("format", None) is not None:
        _fill_in(given, form)
    shown = form or FORMS[0]
    optional = set(shown.optional) | {"factory"}
    if form is not SHAPES:
        optional |= COMMON_KEYS | ({"split"} if "val_fraction" in given else set())
    missing = (shown.needed | {"name"}) - given.keys()
    unknown = given.keys() - shown.needed - {"name"} - optional
    if missing or unknown:
        faults = [f"lacks {key}" for key in sorted(missing)] + [f"has the unknown key {key}" for key in sorted(unknown)]
        raise ValueError(
            f"{place} {' and '.join(faults)}; it needs {', '.join(sorted(shown.needed | {'name'}))}"
            + ("" if form else f". The formats are known by their keys: {known_formats()}")
        )
    _check_subset(given, place)
    return {**given, "factory": shown.factory}


def form_of(entry: dict[str, Any], place: str) -> EntryForm | None:
    """The form of an entry by its ``factory``, its ``format`` or its keys; None where they do not say.

    Raises:
        ValueError: its format is not known.
    """
    if "factory" in entry:
        forms = [form for form in (*FORMS, SHAPES) if form.factory == entry["factory"]]
        return next((form for form in forms if form.mark in entry), forms[0] if forms else None)
    if "format" not in entry:
        return next((form for form in FORMS if form.mark in entry), None)
    forms = [form for form in FORMS if form.format == entry["format"]]
    if not forms:
        raise ValueError(f"{place}: the format {entry['format']!r} is not known; there are {known_formats()}")
    marked = (form for form in forms if form.mark in entry)
    return next(marked, None) or next(form for form in forms if form.mark not in _WHOLE_LAYOUTS)


def _fill_in(given: dict[str, Any], form: EntryForm) -> None:
    """Put the folder of the annotations where the form has it."""
    if form.mark in given or form.mark in ("ann_file", "data_dir"):
        return
    if "ann_dir" in given:
        given[form.mark] = given.pop("ann_dir")
    elif form.format == "labelme" and "img_dir" in given:
        given[form.mark] = given["img_dir"]
    elif form.format == "yolo" and "img_dir" in given:
        folders = str(given["img_dir"]).split("/")
        if "images" in folders:
            last = len(folders) - 1 - folders[::-1].index("images")
            given[form.mark] = "/".join([*folders[:last], "labels", *folders[last + 1 :]])


def _check_subset(given: dict[str, Any], place: str) -> None:
    """Check the keys that choose among the images."""
    fraction = given.get("val_fraction")
    if fraction is None:
        return
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ValueError(f"{place}: val_fraction must be a number between 0 and 1, such as 0.2, but is {fraction!r}")
    if given.get("split") not in _SPLITS:
        raise ValueError(f"{place}: with val_fraction, split must be train or val, but is {given.get('split')!r}")
