import copy
import re

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tfpipe.config.file import dump_config, load_config, parse_config, setting
from tfpipe.config.run import Config
from tfpipe.errors import InputError

LEAST = {"name": "x", "data": {"source": "rows.csv"}, "encoder": {"source": "encoder"}}


def changed(path, value):
    """The least configuration with one setting changed."""
    tree = copy.deepcopy(LEAST)
    *parents, last = path.split(".")
    node = tree
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return tree


def error_of(call, *arguments, **named):
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    """A function that writes a configuration file: from a tree, a text or bytes."""

    def write(content):
        path = tmp_path / "run.yaml"
        if isinstance(content, dict):
            content = yaml.safe_dump(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_what_is_dumped_loads_as_the_same_configuration(write):
    config = parse_config(LEAST, where="test")
    text = dump_config(config)
    assert load_config(write(text)) == config
    written = yaml.safe_load(text)
    for name, field in Config.model_fields.items():
        if name in LEAST or not isinstance(section := getattr(config, name), BaseModel):
            continue
        assert written[name].keys() == type(section).model_fields.keys(), field


def test_a_section_turned_off_stays_off(write):
    config = parse_config(LEAST | {"prune": None, "quantize": None}, where="test")
    assert config.prune is None and load_config(write(dump_config(config))) == config


# Whatever a YAML file can hold: no control characters, no lone surrogates.
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))


@settings(max_examples=100, deadline=None)
@given(column=PRINTABLE, names=st.dictionaries(PRINTABLE, PRINTABLE), rate=st.floats(1e-12, 1e12))
def test_any_text_and_number_survives_being_dumped(column, names, rate):
    tree = changed("data.text_column", column) | {"train": {"learning_rate": rate}}
    tree["data"]["label_names"] = names
    config = parse_config(tree, where="test")
    assert parse_config(yaml.safe_load(dump_config(config)), where="test") == config


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("tain", "did you mean train?"),
        ("train.learning_rat", "did you mean learning_rate?"),
        ("data.split.valid", "did you mean validation?"),
        ("prune.sparsty", "did you mean sparsity?"),
        ("quantize.epoch", "did you mean epochs?"),
        ("prune.zzz", "valid here: method, sparsity, embeddings, epochs, learning_rate, ramp_fraction"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(path, hint):
    message = error_of(parse_config, changed(path, 1), where="run.yaml")
    assert f"run.yaml: {path}: unknown setting; {hint}" in message


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("name", 2024, "name: expected text; put it in quotes (received 2024)"),
        ("name", "a/b", "name: "),
        ("name", "", "name: "),
        ("task", "regression", "'single_label' or 'multi_label' (received 'regression')"),
        ("seed", -1, "greater than or equal to 0 (received -1)"),
        ("seed", 2**31, "less than 2147483648"),
        ("seed", 1.5, "seed: "),
        (
            "data.label_names",
            {True: "yes"},
            "[key]: expected text; put it in quotes (received True)",
        ),
        ("train.batch_size", True, "train.batch_size: expected a number, not true or false; yes, no, on and off are"),
        ("train.epochs", False, "expected a number, not true or false"),
        ("distill.student", {"layers": [0, True]}, "expected a number, not true or false"),
        ("distill", {"hidden_weight": 1, "layer_map": {True: 1}}, "expected a number, not true or false"),
        ("data.label_names", {1.5: "yes"}, "[key]: expected text; put it in quotes (received 1.5)"),
        ("data.filter", {"year": [2.5]}, "data.filter.year.0: expected text; put it in quotes (received 2.5)"),
        ("name", [[["x"] * 9] * 9] * 9, "name: Input should be a valid string (received [[[...], [...]"),
        ("data.filter", {"year": [None]}, "data.filter.year.0: Input should be a valid string (received None)"),
        ("data.max_length", 3, "greater than or equal to 4"),
        ("data.max_length", 4097, "less than or equal to 4096"),
        ("data.label_separator", "", "data.label_separator: "),
        ("data.max_rejected_fraction", 1.1, "less than or equal to 1"),
        ("data.split", {"train": 0.8, "validation": 0.1, "test": 0.2}, "data.split: train + validation + test must be"),
        ("data.split", {"train": 0.9, "validation": 0.1, "test": 0.0}, "all three are needed"),
        ("data", {"source": {"test": "x"}}, "data.source gives splits but no train; add it"),
        ("data.source", {"train": "x", "dev": "y"}, "data.source.dev"),
        ("data.split", {"column": "c", "folds": 5}, "column gives the splits, so folds has no effect"),
        ("data.split", {"group_column": "c", "stratified": True}, "can't keep groups together; leave out"),
        ("data.split", {"folds": 5, "fold": 5}, "fold 5 of 5: folds count from 0"),
        ("data.split", {"fold": 1}, "fold 1 has no effect without folds; set folds"),
        ("data.split", {"folds": 5, "stratified": True}, "folds are made by hash alone"),
        ("data.augmentation", {"copies": 2}, "synonyms, swap and deletion are all 0"),
        ("data", {"source": "x", "runner_options": ["--x=y"]}, "data.runner_options has no effect with data.runner"),
        ("data.duplicates", {"near": False, "near_similarity": 0.7}, "near_similarity has no effect with near: false"),
        ("data.augmentation", {"swap": 0.1, "wordnet": "x"}, "wordnet has no effect without synonyms"),
        ("data.cleaning.unicode", "nfc", "data.cleaning.unicode"),
        ("data.duplicates", {"near_similarity": 0.3}, "greater than or equal to 0.5"),
        ("encoder.sha256", "abc", "encoder.sha256: "),
        ("train", 3, "train: expected a section, that is, a mapping of settings (received 3)"),
        ("train", None, "train: expected a section"),
        ("train.epochs", 0, "greater than 0"),
        ("train.epochs", "many", "train.epochs: Input should be a valid number"),
        ("train.learning_rate", float("nan"), "finite"),
        ("train.learning_rate", float("inf"), "finite"),
        ("train.batch_size", 0, "greater than or equal to 1"),
        ("train.batch_size", 1.5, "train.batch_size: "),
        ("train.warmup_fraction", -0.1, "greater than or equal to 0"),
        ("train.dropout", 1.0, "less than 1"),
        ("train.precision", "float16", "'mixed_bfloat16' or 'mixed_float16' (received 'float16')"),
        ("train.batching", "bucket", "'auto', 'packed', 'bucketed' or 'padded'"),
        ("train.optimizer", "adamax", "'adamw', 'adam' or 'sgd'"),
        ("train.schedule", "step", "'linear', 'cosine' or 'constant'"),
        ("train.class_weights", "heavy", "train.class_weights: Input should be 'balanced' (received 'heavy')"),
        ("train.class_weights", {"a": 0}, "train.class_weights.a: Input should be greater than 0"),
        ("train.early_stopping", {"patience": 0}, "greater than or equal to 1"),
        ("train.layer_decay", 1.5, "less than or equal to 1"),
        ("train.label_smoothing", 1.0, "less than 1"),
        ("prune.sparsity", 1.0, "nothing would be left to answer; expected a share above 0 and below 1, such as 0.5"),
        ("prune.sparsity", 0, "greater than 0"),
        ("export.onnx_opset", 13, "greater than or equal to 17"),
        ("verify.batch_size", 1, "verify.batch_size: "),
        ("verify.batch_sizes", [1, 32], "verify.batch_sizes: unknown setting; did you mean batch_size?"),
        ("verify.max_logit_diff", {"onnx": 0}, "verify.max_logit_diff.onnx: "),
        (
            "verify.max_logit_diff",
            {"keras": 1e-4},
            "expected saved_model, onnx, saved_model_tokens, onnx_text, openvino or litert (received 'keras')",
        ),
        (
            "budget.artifact",
            "tflite",
            "budget.artifact: expected saved_model, onnx, saved_model_tokens, onnx_text, openvino or litert "
            "(received 'tflite')",
        ),
        ("verify.threads", 0, "verify.threads: "),
        ("prune.method", "movement", "'magnitude', 'two_four' or 'structured'"),
        ("prune", {"method": "two_four", "sparsity": 0.8}, "prune: sparsity 0.8 with method: two_four"),
        ("prune", {"method": "structured", "embeddings": True}, "prune: embeddings has no effect with method"),
        ("quantize.mode", "int4", "'qat', 'ptq' or 'weight_only'"),
        ("quantize.percentile", 50.0, "greater than 50"),
        ("distill.temperature", 0, "greater than 0"),
        ("distill.weight", 0, "greater than 0"),
        ("distill", {"layer_map": {0: 1}}, "distill: layer_map has no effect with hidden_weight: 0"),
        ("distill", {"hidden_weight": 1, "layer_map": {-1: 1}}, "greater than or equal to 0"),
        ("distill", {"hidden_weight": 1, "layer_map": {}}, "at least 1 item"),
        ("distill.student", {}, "or encoder (another one); neither is given"),
        ("distill.student", {"layers": [1], "encoder": "x"}, "or encoder (another one); both are given"),
        ("distill.student", {"layers": [1, 1]}, "expected rising numbers, such as [1, 3, 5]"),
        ("distill.student", {"layers": []}, "expected rising numbers"),
        ("distill.student", {"layers": [1], "sha256": "0" * 64}, "sha256 has no effect without encoder"),
        ("budget.max_drop", 1.5, "less than or equal to 1"),
        ("budget.max_size_bytes", 0, "greater than or equal to 1"),
        ("budget.latency_shape", "b2_s2", "'b1_s32', 'b1_s128' or 'b32_s64'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(path, value, said):
    message = error_of(parse_config, changed(path, value), where="run.yaml")
    assert message.startswith(f"run.yaml: {path}") and said in message


@pytest.mark.parametrize("path", ["name", "data", "encoder", "data.source", "encoder.source"])
def test_a_required_setting_that_is_missing_is_named(path):
    tree = copy.deepcopy(LEAST)
    *parents, last = path.split(".")
    del (tree[parents[0]] if parents else tree)[last]
    assert f"{path}: this setting is required" in error_of(parse_config, tree, where="run.yaml")


def test_every_problem_is_said_at_once():
    message = error_of(parse_config, {"name": "x", "data": {"source": "a"}, "tain": {}}, where="run.yaml")
    assert "encoder: this setting is required" in message and "tain: unknown setting" in message


def test_overrides_are_yaml_at_a_dotted_path(write):
    path = write(LEAST | {"prune": None})
    overrides = [
        "train.epochs=1",
        "train.learning_rate=1e-4",
        "quantize=null",
        "prune.sparsity=0.3",
        "verify.max_logit_diff.onnx=1e-3",
        "data.filter={source: [a, b]}",
        "data.text_column=a=b",
        "data.label_column=",
        "data.label_column=other",
    ]
    config = load_config(path, overrides)
    assert (config.train.epochs, config.train.learning_rate) == (1.0, 1e-4)
    assert config.quantize is None and config.prune.sparsity == 0.3  # a section that was off is on again
    assert config.verify.max_logit_diff == {"onnx": 1e-3} and config.data.filter == {"source": ["a", "b"]}
    assert (config.data.text_column, config.data.label_column) == ("a=b", "other")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", "expected a.b=VALUE"),
        ("=3", "expected a.b=VALUE"),
        ("train.epochs=[1", "not valid YAML"),
        ("name=2024-13-45", "not valid YAML"),
        ("name.first=1", "name is a value, not a section"),
        ("data.source.x.y=1", "source is a value, not a section"),
    ],
)
def test_a_bad_override_is_quoted(write, override, said):
    message = error_of(load_config, write(LEAST), [override])
    assert message.startswith(f"--set {override}: ") and said in message


@pytest.mark.parametrize("override", ["train..epochs=1", ".=1", "train.=1", "tain.epochs=1", "[]=1"])
def test_an_override_of_an_unknown_setting_is_refused(write, override):
    assert "unknown setting" in error_of(load_config, write(LEAST), [override])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "not valid YAML"),
        ("a: 1\n\tb: 2", "not valid YAML"),
        ("name: 2024-13-45", "not valid YAML"),
        ("name: !!bool x", "not valid YAML"),
        ("name: !!timestamp x", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("name: x\nname: y", "not valid YAML: the key name stands twice"),
        ("seed: 010", "not valid YAML: 010 counts in octal"),
        ('name: "\\ud83d\\ude00"', r"not valid YAML: \ud83d is half a character"),
        ('? "\\ud800"\n: 1', r"not valid YAML: \ud800 is half a character"),
        ("seed: 0x" + "f" * 5000, "not valid YAML: a number of 5002 characters"),
        ("x" * (2 << 20), "not valid YAML: more than 1 MB of text"),
        ("", "expected a mapping of settings, found NoneType"),
        ("- a\n- b", "expected a mapping of settings, found list"),
        ("just text", "expected a mapping of settings, found str"),
        (b"name: \xff\xfe", "can't read the configuration"),
        ("1: 2", "1: "),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(write, content, said):
    path = write(content)
    message = error_of(load_config, path)
    assert message.startswith(f"{path}: ") and said in message


def test_an_override_changes_one_place_whatever_has_an_alias(write):
    path = write(b"""name: x
data: {source: a}
encoder: {source: e}
train: {early_stopping: &patient {patience: 4}, reduce_on_plateau: *patient}
""")
    train = load_config(path, ["train.early_stopping.patience=7"]).train
    assert (train.early_stopping.patience, train.reduce_on_plateau.patience) == (7, 4)


def test_a_file_without_an_end_is_refused():
    assert "more than 1 MB" in error_of(load_config, "/dev/zero")


def test_a_path_that_is_no_file_is_named(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        message = error_of(load_config, path)
        assert message.startswith(f"{path}: can't read the configuration")


def test_setting_reads_a_dotted_path_as_plain_values():
    config = parse_config(LEAST | {"prune": None}, where="test")
    assert setting(config, "data.split") == {
        "train": 0.8,
        "validation": 0.1,
        "test": 0.1,
        "column": None,
        "group_column": None,
        "stratified": False,
        "folds": None,
        "fold": 0,
    }
    assert setting(config, "verify.max_logit_diff") == {}
    assert setting(config, "prune.sparsity") is None
    with pytest.raises(KeyError):
        setting(config, "train.nothing")


SETTING_NAMES = st.sampled_from([*Config.model_fields, "source", "split", "train", "filter", "sparsity", "label_names"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(SETTING_NAMES | st.text() | st.integers(), children, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(tree=st.dictionaries(SETTING_NAMES | st.text() | st.integers(), TREES, max_size=5))
@example(tree={"\n": None})
def test_no_tree_raises_anything_but_input_error(tree):
    for candidate in (tree, LEAST | tree):
        try:
            parse_config(candidate, where="run.yaml")
        except InputError as error:
            assert re.fullmatch("run.yaml: .+", str(error))  # one line


@settings(max_examples=200, deadline=None)
@given(
    text=st.text() | st.text("abc:-[]{}&*!|>'\"#%@`,? \n\t0159.e", max_size=40),
    override=st.text() | st.text("namedt.=[]{}:& !0_b", max_size=15),
)
def test_no_text_raises_anything_but_input_error(tmp_path_factory, text, override):
    path = tmp_path_factory.getbasetemp() / "junk.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError):
        load_config(path)
    path.write_text(dump_config(parse_config(LEAST, where="test")), encoding="utf-8")
    try:
        load_config(path, [override])
    except InputError as error:
        assert str(error)
