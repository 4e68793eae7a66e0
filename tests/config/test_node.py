"""The config tree: what merges accept, and what their errors say."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import yacs.config
import yaml

from maskrcnn_benchmark.config import CfgNode
from maskrcnn_benchmark.config import cfg as global_cfg


@pytest.fixture
def cfg():
    return global_cfg.clone()


def write(folder, text, name="c.yaml"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("SOLVER.MAX_ITR", "SOLVER.MAX_ITER"),
        ("solver.base_lr", "SOLVER.BASE_LR"),
        ("MODEL.RPNN.NMS_THRESH", "MODEL.RPN.NMS_THRESH"),
        ("SOLVER.NUM_CLASSES", "MODEL.ROI_BOX_HEAD.NUM_CLASSES"),
        ("MODEL.WEIGHTS", "MODEL.WEIGHT"),
        ("MODEL.RPN.NMS_THRESH.DEEPER", "MODEL.RPN.NMS_THRESH"),
    ],
)
def test_an_unknown_key_names_itself_and_the_nearest(cfg, tmp_path, key, nearest):
    with pytest.raises(KeyError) as caught:
        cfg.merge_from_list([key, 1])
    assert key in str(caught.value)
    assert nearest in str(caught.value).split("did you mean")[1]
    assert not str(caught.value).startswith("'")
    tree = 1
    for part in reversed(key.split(".")):
        tree = {part: tree}
    file = write(tmp_path, yaml.safe_dump(tree))
    with pytest.raises(KeyError, match=nearest) as caught:
        cfg.merge_from_file(file)
    assert file in str(caught.value)


def test_a_key_like_no_other_gets_no_guess(cfg):
    with pytest.raises(KeyError) as caught:
        cfg.merge_from_list(["QQQQ", 1])
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("SOLVER.MAX_ITER", "many", "int"),
        ("SOLVER.MAX_ITER", 2.5, "int"),
        ("SOLVER.BASE_LR", "0.1x", "float"),
        ("NHWC", 1, "bool"),
        ("SOLVER.STEPS", 100, "tuple"),
        ("MODEL.WEIGHT", ["a"], "str"),
        ("INPUT.MIN_SIZE_TRAIN", "big", "int or tuple"),
        ("SOLVER.MAX_ITER", None, "int"),
        ("MODEL.RPN", 3, "section"),
        ("MODEL.RPN", None, "section"),
    ],
)
def test_a_wrong_type_names_key_value_and_type(cfg, tmp_path, key, value, wanted):
    before = copy.deepcopy(cfg)
    *sections, leaf = key.split(".")
    tree = {leaf: value}
    for part in reversed(sections):
        tree = {part: tree}
    file = write(tmp_path, yaml.safe_dump({"DTYPE": "float16", **tree}))
    with pytest.raises(ValueError, match=wanted) as caught:
        cfg.merge_from_file(file)
    assert key in str(caught.value)
    assert repr(value) in str(caught.value)
    assert file in str(caught.value)
    assert cfg == before, "a merge that fails changes nothing"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("DATASETS.TRAIN", "coco_2017_train", ("coco_2017_train",)),
        ("DATASETS.TRAIN", '("coco_2017_train")', ("coco_2017_train",)),
        ("DATASETS.TEST", '("a", "b")', ("a", "b")),
        ("DATASETS.TEST", "(a,)", ("a",)),
        ("DATASETS.TEST", "a,b", ("a", "b")),
        ("DATASETS.TEST", "()", ()),
        ("INPUT.MIN_SIZE_TRAIN", "640", 640),
        ("INPUT.MIN_SIZE_TRAIN", "(640, 800)", (640, 800)),
        ("INPUT.MIN_SIZE_TRAIN", [640, 800], (640, 800)),
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-5", 1e-5),
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.0001", 0.0001),
        ("SOLVER.STEPS", "[10, 20]", (10, 20)),
        ("NHWC", "False", False),
        ("NHWC", "false", False),
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", "'quoted'", "quoted"),
        ("MODEL.WEIGHT", "None", "None"),
    ],
)
def test_accepted_values(cfg, key, text, value):
    cfg.merge_from_list([key, text])
    found = cfg
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_custom_data_sets_from_a_file_and_from_the_command_line(cfg, tmp_path):
    entry = {"name": "mine", "img_dir": "a", "ann_file": "b.json"}
    cfg.merge_from_file(write(tmp_path, "DATASETS:\n  CUSTOM:\n  - {name: mine, img_dir: a, ann_file: b.json}\n"))
    assert [entry] == cfg.DATASETS.CUSTOM
    cfg.merge_from_list(["DATASETS.CUSTOM", str([entry, {**entry, "name": "other"}])])
    assert [e["name"] for e in cfg.DATASETS.CUSTOM] == ["mine", "other"]
    assert global_cfg.DATASETS.CUSTOM == []


@pytest.mark.parametrize("key", ["MODEL.BACKBONE.OUT_CHANNELS", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS"])
def test_the_two_names_of_one_value(cfg, tmp_path, key):
    section, name = key.split(".")[1:]
    cfg.merge_from_file(write(tmp_path, f"MODEL: {{{section}: {{{name}: 256}}}}"))
    assert cfg.MODEL.BACKBONE.OUT_CHANNELS == cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS == 256
    cfg.merge_from_list([key, "64"])
    assert cfg.MODEL.BACKBONE.OUT_CHANNELS == cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS == 64


def test_the_two_names_of_one_value_must_agree(cfg, tmp_path):
    text = "MODEL: {{BACKBONE: {{OUT_CHANNELS: 256}}, RESNETS: {{BACKBONE_OUT_CHANNELS: {}}}}}"
    cfg.merge_from_file(write(tmp_path, text.format(256)))
    with pytest.raises(ValueError, match=r"MODEL.BACKBONE.OUT_CHANNELS \(256\).*BACKBONE_OUT_CHANNELS \(128\)"):
        cfg.merge_from_file(write(tmp_path, text.format(128)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {RPN: [1, 2", r"line 1, column \d+"),
        ("MODEL:\n\t RPN: 3", "line 2"),
        ("- 1\n- 2", "list"),
        ("just words", "str"),
    ],
)
def test_broken_yaml_is_one_sentence_with_the_file(cfg, tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        cfg.merge_from_file(file)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text(cfg, tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00MODEL")
    with pytest.raises(ValueError, match="not valid YAML"):
        cfg.merge_from_file(tmp_path / "c.yaml")


def test_missing_and_empty_files(cfg, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config file .*nowhere.yaml does not exist"):
        cfg.merge_from_file(tmp_path / "nowhere.yaml")
    cfg.merge_from_file(write(tmp_path, "# nothing\n"))
    assert cfg == global_cfg


def test_odd_number_of_overrides(cfg):
    with pytest.raises(ValueError, match="3 items"):
        cfg.merge_from_list(["NHWC", "True", "DTYPE"])


def test_clone_pickle_dump_and_freeze(cfg):
    cfg.merge_from_list(["SOLVER.STEPS", "(1, 2)", "DATASETS.CUSTOM", "[{'name': 'a'}]"])
    assert pickle.loads(pickle.dumps(cfg)) == cfg
    assert cfg.clone() == cfg
    assert cfg.clone() is not cfg
    again = global_cfg.clone()
    again.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    assert again == cfg
    again = global_cfg.clone()
    again.merge_from_other_cfg(yacs.config.CfgNode.load_cfg(cfg.dump()))
    assert again == cfg
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.MODEL.DEVICE = "cpu"
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    assert global_cfg.MODEL.DEVICE == "cuda"


def test_plain_yacs_use_goes_on_working(cfg):
    assert isinstance(cfg, yacs.config.CfgNode)
    cfg.MODEL.MY_HEAD = CfgNode()
    cfg.MODEL.MY_HEAD.WIDTH = 3
    cfg.merge_from_list(["MODEL.MY_HEAD.WIDTH", 4])
    assert cfg.MODEL.MY_HEAD.WIDTH == 4
    cfg.register_deprecated_key("MODEL.OLD")
    cfg.merge_from_list(["MODEL.OLD", 1])
    cfg.register_renamed_key("MODEL.FORMER", "MODEL.WEIGHT")
    with pytest.raises(KeyError, match=r"renamed to MODEL.WEIGHT"):
        cfg.merge_from_list(["MODEL.FORMER", "x"])
    cfg.MODEL.set_new_allowed(True)
    cfg.merge_from_list(["MODEL.BRAND.NEW", 5])
    assert cfg.MODEL.BRAND.NEW == 5


def test_a_python_file_as_in_yacs(cfg, tmp_path):
    cfg.merge_from_file(write(tmp_path, "cfg = {'SOLVER': {'MAX_ITER': 7}}", name="c.py"))
    assert cfg.SOLVER.MAX_ITER == 7


HOSTILE = {
    "an object": ("SOLVER: !!python/object/apply:os.system ['touch pwned']\n", "could not determine a constructor"),
    "aliases that multiply": (
        "a: &a [1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghi")),
        "stands for more than",
    ),
    "an alias of itself": ("a: &a [*a]\n", "stands for more than"),
    "depth": ("a: " + "[" * 5000, "nested too deeply"),
    "digits": (f"SOLVER: {{MAX_ITER: {'9' * 5000}}}\n", "not valid YAML"),
    "a date that is none": ("OUTPUT_DIR: 2024-13-45\n", "month must be"),
    "a null byte": ("OUTPUT_DIR: a\0b\n", "not valid YAML"),
    "no UTF-8": (b"OUTPUT_DIR: \xff\xfe\n", "not valid YAML"),
    "size": ("# " + "x" * (1 << 20), "more than 1048576 bytes"),
    "not a number": ("SOLVER: {BASE_LR: .nan}\n", "SOLVER.BASE_LR is not a number"),
    "a number of 65 bits": (
        "SOLVER: {MAX_ITER: 0x1ffffffffffffffff}\n",
        "SOLVER.MAX_ITER is an integer of more than 64",
    ),
    "a base that is a list": ("_BASE_: [a, b]\n", "_BASE_ .* does not exist"),
    "a base of nobody's": ("_BASE_: ~nobody-at-all/x.yaml\n", "_BASE_ ~nobody-at-all/x.yaml does not exist"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_files_made_to_do_harm_are_named(tmp_path, what):
    content, words = HOSTILE[what]
    path = tmp_path / "hostile.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
        global_cfg.clone().merge_from_file(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "raw", ["(" * 300, "-" * 60000 + "1", "1+" * 30000 + "1", "[" * 60000, "{[]: 1}", "9" * 10**6, "a\0b"]
)
def test_texts_that_no_compiler_takes_are_texts(raw):
    tree = global_cfg.clone()
    tree.merge_from_list(["OUTPUT_DIR", raw])
    assert tree.OUTPUT_DIR == raw
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_ITER must be of type int") as error:
        tree.merge_from_list(["SOLVER.MAX_ITER", raw])
    assert len(str(error.value)) < 600


def test_a_key_that_stands_twice_is_told(tmp_path, caplog):
    (tmp_path / "twice.yaml").write_text("SOLVER:\n  MAX_ITER: 5\n  MAX_ITER: 6\n")
    tree = global_cfg.clone()
    tree.merge_from_file(tmp_path / "twice.yaml")
    assert tree.SOLVER.MAX_ITER == 6
    assert "twice.yaml: MAX_ITER stands twice in one section; line 3 counts" in caplog.text
