"""The typed, strict configuration of a run: every setting with its type, its default and what it means.

Enters: a mapping of settings. Leaves: a `Config`, every default filled in. Wrong values and settings that would have no
effect fail here, before any work; `config_file` reads and writes it, and says what is wrong in one line.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


def _as_text(value: Any) -> Any:
    """A number that stands for text, such as the label 0: YAML knows no other way to write it without quotes."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Text = Annotated[str, BeforeValidator(_as_text)]
Source = str | tuple[str, ...]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SPLITS = ("train", "validation", "test")
SplitName = Literal["train", "validation", "test"]


class Split(Section):
    """Who trains, who chooses, who is only reported: by a hash of a row's content, whatever the order of the rows."""

    train: Fraction = Field(0.8, description="share of the rows that train")
    validation: Fraction = Field(0.1, description="share that chooses the best checkpoint and judges the budgets")
    test: Fraction = Field(0.1, description="share that is only ever reported")
    column: str | None = Field(
        None, description="column that names each row's split: train, validation (or valid, dev) or test; null: none"
    )
    group_column: str | None = Field(
        None, description="column whose equal values stay in one split, such as a user or a document; null: none"
    )
    stratified: bool = Field(
        False, description="true: each label has the given shares exactly, but new rows may move old ones at a border"
    )
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None,
        description="k-fold: fold `fold` of so many is the test split, whatever `test` says; null: no folds",
    )
    fold: Annotated[int, Field(ge=0)] = Field(0, description="which of the folds is the test split")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, not {total:g}; change one of the three")
        if not (self.train and self.validation and self.test):
            raise ValueError("each of train, validation and test must be above 0: all three are needed")
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Split:
        if self.column is not None and (self.folds is not None or self.group_column is not None):
            other = "folds" if self.folds is not None else "group_column"
            raise ValueError(f"column gives the splits, so {other} has no effect; leave one of them out")
        if self.stratified and self.group_column is not None:
            raise ValueError("stratified splits can't keep groups together; leave out stratified or group_column")
        if self.stratified and self.folds is not None:
            raise ValueError("folds are made by hash alone; leave out stratified or folds")
        if self.folds is None and self.fold:
            raise ValueError(f"fold {self.fold} has no effect without folds; set folds")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} of {self.folds}: folds count from 0; set fold below folds")
        return self


class Cleaning(Section):
    """What becomes of a text before its word pieces are looked up, in preparation and in serving alike.

    The tokenizer itself drops control characters and takes every white space as a space, as transformers does.
    """

    html: bool = Field(
        False,
        description="<br> and <br /> become a space; &amp; &lt; &gt; &quot; &apos; &#39; &nbsp; what they stand for",
    )
    unicode: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = Field(
        None, description="Unicode normal form; the KC and KD forms fold ligatures, full-width letters, fractions"
    )
    lower_case: bool = Field(False, description="lower-case the text of a cased vocabulary; an uncased one does anyway")
    stop_words: Literal["english"] | tuple[Text, ...] = Field(
        (), description="words to leave out, whatever their case; english: scikit-learn's list"
    )


class Duplicates(Section):
    """Rows that occur more than once. Identical training rows are always reduced to the first."""

    across_splits: Literal["remove", "keep", "refuse"] = Field(
        "remove",
        description="a row whose text is also in a split that judges it (test before validation before train): remove "
        "it, keep it and say so, or refuse the data",
    )
    near: bool | Literal["auto"] = Field(
        "auto", description="look for nearly equal texts across splits too; auto: up to a million rows"
    )
    near_similarity: Annotated[float, Field(ge=0.5, le=1.0)] = Field(
        0.8, description="Jaccard similarity of the texts' 8-byte pieces from which two rows are nearly equal"
    )


class Augmentation(Section):
    """Altered copies of training rows, made after the split; each points to the row it came from."""

    copies: Annotated[int, Field(ge=1, le=100)] = Field(1, description="altered copies of each training row")
    synonyms: Fraction = Field(0.0, description="probability that a word becomes a synonym (WordNet)")
    swap: Fraction = Field(0.0, description="probability that a word changes places with another")
    deletion: Fraction = Field(0.0, description="probability that a word is left out; one word is always left")
    wordnet: str = Field(
        "/usr/share/wordnet", description="directory of WordNet's files; Debian's and Ubuntu's package: wordnet-base"
    )

    @model_validator(mode="after")
    def _something_changes(self) -> Augmentation:
        if not (self.synonyms or self.swap or self.deletion):
            raise ValueError("synonyms, swap and deletion are all 0, so copies would be the same; set one of them")
        return self


class Data(Section):
    """Where the rows come from and how they become examples."""

    source: Source | dict[SplitName, Source] = Field(
        description="file, glob, directory of a folder per class, gs://…, package:NAME/PATH, hf:NAME, tfds:NAME; a "
        "list of these; or given splits: {train: …, validation: …, test: …}"
    )
    format: Literal["auto", "csv", "tsv", "json_lines", "parquet", "folder", "tfrecord"] = Field(
        "auto", description="of the files; auto: by their names, such as .csv, .tsv.gz, .jsonl, .parquet, .tfrecord"
    )
    quoting: bool = Field(
        True, description="csv and tsv: fields may stand in quotes; false: a quote is a character like any other"
    )
    text_column: str = Field("text", description="column that holds the text")
    text_pair_column: str | None = Field(None, description="column of the second text of a pair; null: single texts")
    label_column: str = Field("label", description="column that holds the label")
    label_names: dict[Text, Text] | None = Field(
        None, description="value in the file -> name of the label, in the order of the classes; null: values as found"
    )
    label_separator: str = Field("|", min_length=1, description="between the labels of one row (multi_label only)")
    filter: dict[Text, Annotated[list[Text], BeforeValidator(_as_list)]] = Field(
        default_factory=dict, description="column -> value or values; only rows that match every entry are used"
    )
    split: Split = Field(default_factory=Split, description="how rows are divided, unless the source gives the splits")
    cleaning: Cleaning = Field(default_factory=Cleaning, description="before tokenizing, here and in serving")
    tokenizer: Literal["exact", "fast"] = Field(
        "exact",
        description="exact: the ids of transformers; fast: tensorflow-text's FastBertTokenizer, which differs on "
        "compatibility characters (½, ﬁ, full-width letters), special tokens written in a text, NUL, long words",
    )
    max_length: Annotated[int, Field(ge=4, le=4096)] = Field(
        128, description="longest example in tokens, [CLS] and [SEP] included; what is longer is cut"
    )
    max_rejected_fraction: Fraction = Field(0.01, description="share of unusable rows above which preparation stops")
    duplicates: Duplicates = Field(default_factory=Duplicates, description="what happens to rows that occur again")
    augmentation: Augmentation | None = Field(None, description="of training rows; null: none")
    balance: Literal["none", "oversample"] = Field(
        "none",
        description="oversample: repeat training rows until every label has as many as the commonest (single_label); "
        "for weights instead, train.class_weights: balanced",
    )
    workers: PositiveInt | None = Field(
        None, description="processes that prepare; null: one per processor, or this one alone for little data"
    )
    runner: Literal["local", "DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner"] = Field(
        "local", description="local: processes on this machine; else Apache Beam (pip install 'tfpipe[beam]')"
    )
    runner_options: tuple[Text, ...] = Field(
        (), description="Beam's own options, such as --direct_num_workers=2 or --project=NAME"
    )

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Data:
        if isinstance(self.source, dict):
            if "train" not in self.source:
                raise ValueError("data.source gives splits but no train; add it")
            for name in ("column", "folds", "group_column"):
                if getattr(self.split, name) is not None:
                    raise ValueError(f"data.source gives the splits, so data.split.{name} has no effect; leave it out")
        if self.cleaning.stop_words and self.tokenizer == "fast":
            raise ValueError("data.cleaning.stop_words needs data.tokenizer: exact")
        if self.runner_options and self.runner == "local":
            raise ValueError("data.runner_options has no effect with data.runner: local; leave it out")
        if self.runner not in ("local", "DirectRunner") and self.duplicates.near is not False:
            raise ValueError(
                f"data.runner: {self.runner} does not look for near duplicates, as their index lies on this machine; "
                "set data.duplicates.near: false"
            )
        if self.workers is not None and self.runner != "local":
            raise ValueError(f"data.workers has no effect with data.runner: {self.runner}; set it in runner_options")
        return self


class Encoder(Section):
    """The pretrained encoder."""

    source: str = Field(
        description="package:NAME/PATH, hf:ORGANISATION/NAME[@REVISION], keras-nlp:PRESET, or a directory"
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="expected SHA-256 of the weights file; null: not checked"
    )


class EarlyStopping(Section):
    """When `train` ends before its last epoch."""

    patience: PositiveInt = Field(2, description="evaluations in a row that may bring no improvement of train.metric")
    min_delta: NotNegative = Field(0.0, description="smallest change of the metric that counts as an improvement")


class ReduceOnPlateau(Section):
    """When `train` multiplies its learning rate by a factor, beside the schedule."""

    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.5, description="of the learning rate")
    patience: PositiveInt = Field(1, description="evaluations in a row that may bring no improvement of train.metric")
    min_delta: NotNegative = Field(0.0, description="smallest change of the metric that counts as an improvement")


class Train(Section):
    """Fine-tuning of the dense model; what pruning and quantization do not set themselves they take from here."""

    epochs: PositiveFloat = Field(3.0, description="passes over the training rows")
    batch_size: PositiveInt = Field(
        32, description="examples per optimizer step, over all replicas; packed: on average, as rows are a whole number"
    )
    batching: Literal["auto", "packed", "bucketed", "padded"] = Field(
        "auto",
        description="packed: several examples a row, one shape, hardly any padding; bucketed: an example a row, a few "
        "lengths; padded: an example a row of data.max_length; auto: packed",
    )
    row_length: Annotated[int, Field(ge=4, le=8192)] | None = Field(
        None, description="tokens of a packed row; null: the shortest from 64 on, of a few, that is filled to 90 %"
    )
    gradient_accumulation: PositiveInt = Field(
        1, description="micro-batches into which each replica divides its part of a step, to save memory"
    )
    optimizer: Literal["adamw", "adam", "sgd", "lamb"] = Field("adamw", description="sgd has momentum")
    learning_rate: PositiveFloat = Field(5e-5, description="peak learning rate")
    schedule: Literal["linear", "cosine", "polynomial", "constant"] = Field(
        "linear", description="how the rate falls from its peak to 0 at the last example; constant: it does not"
    )
    schedule_power: PositiveFloat = Field(2.0, description="of the polynomial schedule: (1 - share done) ** power")
    warmup_fraction: Fraction = Field(0.1, description="share of the examples over which the rate rises from 0")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="factor of the learning rate per layer from the head down to the embeddings"
    )
    frozen_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="lowest layers that keep their weights, the embeddings too; 0: embeddings alone; null: none"
    )
    weight_decay: NotNegative = Field(
        0.01, description="decoupled decay (not of adam); biases and layer norms are left out"
    )
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="of sgd")
    clip_global_norm: PositiveFloat | None = Field(1.0, description="largest global gradient norm; null: no clipping")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="share of the probability that the loss spreads over all labels"
    )
    class_weights: Literal["balanced"] | dict[Text, PositiveFloat] | None = Field(
        None, description="label -> weight of its examples in the loss; balanced: by inverse frequency; null: all 1"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        None, description="dropout of hidden states and attention; null: what the encoder's config.json says"
    )
    metric: Literal["accuracy", "macro_f1", "loss"] = Field(
        "accuracy", description="validation metric that chooses the best checkpoint"
    )
    evaluations_per_epoch: PositiveInt = Field(1, description="on the validation rows; one more at the end")
    early_stopping: EarlyStopping | None = Field(None, description="null: all epochs are trained")
    reduce_on_plateau: ReduceOnPlateau | None = Field(None, description="null: the schedule alone")
    strategy: Literal["auto", "one_device", "mirrored"] = Field(
        "auto", description="tf.distribute strategy; auto: mirrored with several GPUs, else one device"
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "auto",
        description="compute precision; auto: mixed_bfloat16 on a TPU or a CPU that multiplies it, mixed_float16 with "
        "dynamic loss scaling on a GPU, else float32",
    )
    steps_per_execution: PositiveInt = Field(
        1, description="steps per call of the compiled function; more saves the host's time where a step is short"
    )
    checkpoint_every: PositiveInt = Field(100, description="steps between two checkpoints")

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Train:
        # What stands at its default was not asked for: the file that a run keeps names every setting.
        needs = (
            ("row_length", "batching", ("auto", "packed")),
            ("momentum", "optimizer", ("sgd",)),
            ("weight_decay", "optimizer", ("adamw", "lamb", "sgd")),
            ("schedule_power", "schedule", ("polynomial",)),
        )
        for name, other, wanted in needs:
            value, chosen = getattr(self, name), getattr(self, other)
            if value and value != type(self).model_fields[name].default and chosen not in wanted:
                raise ValueError(
                    f"train.{name} {value:g} has no effect with train.{other}: {chosen}; leave it out, or set "
                    f"train.{other}: {wanted[0]}"
                )
        return self


class Prune(Section):
    """Magnitude pruning (TF-MOT) with fine-tuning."""

    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="share of zeros in every kernel of the encoder at the end"
    )
    epochs: PositiveFloat = Field(1.0, description="passes over the training rows")
    learning_rate: PositiveFloat = Field(5e-5, description="peak learning rate")
    ramp_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="share of the steps over which sparsity rises; the rest recovers accuracy"
    )


class Quantize(Section):
    """Quantization-aware training (TF-MOT), 8 bits, always in float32."""

    epochs: PositiveFloat = Field(0.5, description="passes over the training rows")
    learning_rate: PositiveFloat = Field(2e-5, description="peak learning rate")
    calibration_rows: PositiveInt = Field(512, description="training rows that set the first activation ranges")


class Export(Section):
    """SavedModel and ONNX."""

    onnx_opset: Annotated[int, Field(ge=17, le=18)] = Field(17, description="ONNX operator set")
    serving_version: Literal["2.19.1", "2.20.0"] = Field(
        "2.20.0", description="TF Serving release whose operators the SavedModel may use"
    )


class Verify(Section):
    """The gates: outside any of them nothing is published."""

    rows: PositiveInt = Field(5000, description="rows of the test split that every artefact answers; at most all")
    batch_sizes: tuple[PositiveInt, PositiveInt] = Field((1, 32), description="two batch sizes to compare at")
    small_batch_rows: PositiveInt = Field(500, description="rows that answer at the smaller batch size as well")
    max_logit_diff_saved_model: PositiveFloat = Field(
        1e-5, description="largest logit difference between the SavedModel and the float32 Keras model"
    )
    max_logit_diff_onnx: PositiveFloat = Field(1e-4, description="the same for ONNX")
    min_label_agreement_int8: Fraction = Field(0.99, description="int8 artefacts: share of equal labels, at least")
    max_probability_diff_int8: PositiveFloat = Field(
        0.01, description="int8 artefacts: mean absolute difference of probability, at most"
    )
    max_accuracy_drop: Fraction = Field(
        0.03, description="accuracy, on validation rows, that a compressed variant may lose against dense"
    )

    @model_validator(mode="after")
    def _two_sizes(self) -> Verify:
        if self.batch_sizes[0] == self.batch_sizes[1]:
            raise ValueError("verify.batch_sizes must be two different sizes")
        return self


class Report(Section):
    """What the report measures."""

    latency_runs: PositiveInt = Field(10, description="timed calls per artefact and shape; the median is reported")
    threads: PositiveInt | None = Field(None, description="ONNX Runtime threads; null: all processors")


class Config(Section):
    """One run: `tfpipe run CONFIG`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run: runs/NAME by default")
    task: Literal["single_label", "multi_label"] = Field("single_label", description="one label a text, or any number")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="seed of everything random")
    data: Data
    encoder: Encoder
    train: Train = Field(default_factory=Train)
    prune: Prune | None = Field(default_factory=Prune, description="null: no pruned variant")
    quantize: Quantize | None = Field(default_factory=Quantize, description="null: no int8 variant")
    export: Export = Field(default_factory=Export)
    verify: Verify = Field(default_factory=Verify)
    report: Report = Field(default_factory=Report)

    @model_validator(mode="after")
    def _oversampling_needs_one_label(self) -> Config:
        if self.data.balance == "oversample" and self.task == "multi_label":
            raise ValueError(
                "data.balance: oversample needs task: single_label; else set train.class_weights: balanced"
            )
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """The model variants that this run makes, in the order in which they are made."""
        return (
            "dense",
            *(("pruned",) if self.prune is not None else ()),
            *(("int8",) if self.quantize is not None else ()),
        )
