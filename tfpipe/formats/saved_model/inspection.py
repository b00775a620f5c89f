"""Inspection of a SavedModel of unknown origin, before it is loaded.

A SavedModel is a program ("Using TensorFlow securely", https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md):
its operators can read and write files, reach other machines and call into the interpreter, some of them while it is
loaded, before any request. So every node of every graph and every function is inspected, called or not:

- An operator that TensorFlow's registry calls stateless is taken, unless `_REFUSED` names it: a stateless operator can
  be left out or done twice, but it may still touch files (ReadFile is stateless).
- Of the others, those of `_STATEFUL` are taken: variables, tables, random numbers, control flow.
- All other operators, unknown ones included, are refused by name, unless the caller allows that name.

Some operators depend on their place. RestoreV2, SaveV2 and MergeV2Checkpoints are in every SavedModel, in two functions
of its saver, which loading does not call (it reads the variables itself). They are taken there. They are refused in a
function that a signature, an object or another function can call, or TensorFlow in place of another: a name in any
attribute counts. InitializeTableFromTextFile reads a vocabulary: it is taken if its path is an asset of the SavedModel.
PrintV2 can print to a file: it is taken if it prints to the console. A SavedModel of TensorFlow 1, which has no
objects, is restored by operators of its own: they are refused, or allowed by name.

Assets are named relative to the directory, and no link in it may lead out of it. The inspection does not protect
against mistakes in TensorFlow's kernels and parsers, or models that take all memory and time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the tokenizer's operators
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from tfpipe.errors import InputError
from tfpipe.files import path_inside
from tfpipe.formats.saved_model.serving_check import nodes_of

SAVED_MODEL = "saved_model.pb"
MOST_BYTES = 2**31 - 1  # of a protocol buffer

_REFUSED = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (r"(Eager)?PyFunc(Stateless)?", "calls Python"),
        (
            r"XlaCustomCall(V2)?|XlaCallModule|XlaLaunch\w*|_?Xla(Compile|Run)\w*|MlirPassthroughOp|DatasetFromGraph|"
            r"\w*FusedGraph\w*|GeneratorDataset",
            "runs a program that is not in the graph",
        ),
        (
            r"ReadFile|MatchingFiles|ImmutableConst|GenerateVocabRemapping|LoadAndRemapMatrix|Skipgram|RecordInput|"
            r"InitializeTableFromTextFile(V2)?|\w*(TextLine|FixedLengthRecord|TFRecord|CSV|Sql|LMDB|MatchingFiles)Dataset\w*|"
            r"\w+Reader(V2)?|SnapshotChunkDataset|SnapshotNestedDatasetReader|(List)?SnapshotChunks?Dataset|LoadDataset\w*|"
            r"FixedUnigramCandidateSampler|Restore\w*|\w*RestoreV2|DecodeProto\w*|EncodeProto",
            "reads files",
        ),
        (
            r"WriteFile|Save\w*|ShardedSave|MergeV2Checkpoints|DistributedSave|CacheDataset\w*|SnapshotDataset\w*|PrintV2|"
            r"\w*DatasetToTFRecord|Create\w*Summary\w*|Write\w*Summary|SummaryWriter|CalibrationStatisticsSaver|DumpTensor|"
            r"FileSystemSetConfiguration",
            "writes files",
        ),
        (
            r"Debug(Identity|NanCount|NumericSummary)\w*|Copy|CopyHost|RegisterDataset\w*|DataService\w*|Rpc\w*|"
            r"DeleteRpc\w*|RemoteCall|WorkerHeartbeat|_?(Host)?(Send|Recv)|\w*Collective\w*|_?Nccl\w*|DTensor\w*|"
            r"\w*(Configure|Initialize|Shutdown|WaitFor|Disconnect)\w*(Distributed|TPU)\w*",
            "reaches other processes or machines",
        ),
        (r"Abort|\w*(Crash|Kill)\w*", "ends the process"),
        (r"(\w+>)?Test\w*|ConstructionFails", "is for TensorFlow's own tests"),
        (r"_?TPU\w*|_?Xla\w*|\w*TPUEmbedding\w*|(In|Out)feed\w*", "is for accelerators alone"),
        (r"_.*", "is internal to TensorFlow"),
    )
)

_UNKNOWN = "is not known to TensorFlow here"
_STATE = "changes more than the model's own state, or is not known not to"
_WORST_FIRST = [*(why for _, why in _REFUSED), _UNKNOWN, _STATE]

_STATEFUL = frozenset(
    """
    VarHandleOp ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp VarIsInitializedOp VariableShape
    DestroyResourceOp ResourceGather ResourceGatherNd DisableCopyOnRead Variable VariableV2 TemporaryVariable
    ResourceScatterUpdate ResourceScatterAdd ResourceScatterNdUpdate ResourceScatterNdAdd ResourceStridedSliceAssign
    HashTable HashTableV2 AnonymousHashTable MutableHashTable MutableHashTableV2 AnonymousMutableHashTable
    MutableDenseHashTable MutableDenseHashTableV2 AnonymousMutableDenseHashTable InitializeTableV2 LookupTableFindV2
    LookupTableSizeV2 LookupTableInsertV2 LookupTableRemoveV2 LookupTableImportV2 LookupTableExportV2
    StatefulPartitionedCall If While Case Assert CheckNumerics CheckNumericsV2 Print GuaranteeConst Empty DeepCopy
    TensorArrayV3 TensorArrayReadV3 TensorArrayWriteV3 TensorArrayGatherV3 TensorArrayScatterV3 TensorArrayConcatV3
    TensorArraySplitV3 TensorArraySizeV3 TensorArrayCloseV3 TensorArrayGradV3 StackV2 StackPushV2 StackPopV2
    StackCloseV2 RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal RandomShuffle RandomGamma
    RandomPoissonV2 Multinomial StatefulUniform StatefulUniformInt StatefulUniformFullInt StatefulStandardNormalV2
    StatefulTruncatedNormal RngSkip RngReadAndSkip StatelessRandomGetAlg
    CudnnRNN CudnnRNNV2 CudnnRNNV3 CudnnRNNBackprop CudnnRNNBackpropV2 CudnnRNNBackpropV3
    WordpieceTokenizeWithOffsets SentencepieceOp SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp
    SentencepieceDetokenizeOp SentencepieceIdToStringOp SentencepieceStringToIdOp SentencepieceVocabSizeOp
    """.split()
)

_SAVER = ("RestoreV2", "SaveV2", "MergeV2Checkpoints")
_INTERCHANGEABLE = "api_implements"
"""attribute of a function that TensorFlow may call in place of another with the same value, by their devices"""
_TEXT_FILE = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
_CONSOLE = {b"", b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)"}


def load_saved_model(directory: Path, allowed: Collection[str] = ()) -> Any:
    """Inspects a SavedModel, and loads it: `tf.saved_model.load` for a directory of any origin.

    Args:
      directory: of the SavedModel.
      allowed: names of operators that are taken wherever they stand.

    Raises:
      InputError: an operator of it is refused; see the top of this module.
    """
    inspect_saved_model(directory, allowed)
    return tf.saved_model.load(str(directory))


def inspect_saved_model(directory: Path, allowed: Collection[str] = ()) -> int:
    """Looks at every node of a SavedModel, without loading it.

    Args:
      directory: of the SavedModel.
      allowed: names of operators that are taken wherever they stand.

    Returns:
      The number of nodes.

    Raises:
      InputError: the SavedModel is not whole, has a refused operator or a path that leads out of the directory, or has
        no operator of an allowed name.
    """
    for name in allowed:
        if op_def_registry.get(name) is None:
            raise InputError(
                f"--allow-operator {name}: TensorFlow has no such operator; give the name from the message"
            )
    for link in _links(directory):
        if not link.resolve().is_relative_to(directory.resolve()):
            raise InputError(
                f"{link}: a link that leads out of the SavedModel; if what it leads to is meant, copy it: cp -rL"
            )
    saved_model, count = _read(directory / SAVED_MODEL), 0
    found: list[tuple[int, str, str, str]] = []
    # As TensorFlow decides whether a model is loaded by its objects, which calls no saver, or as a graph of TF 1.
    by_objects = len(saved_model.meta_graphs) == 1 and saved_model.meta_graphs[0].HasField("object_graph_def")
    for meta_graph in saved_model.meta_graphs:
        for asset in meta_graph.asset_file_def:
            path_inside(directory / "assets", asset.filename, str(directory / SAVED_MODEL), through_links=False)
        taken = set(_expected(meta_graph)) if by_objects else set()
        own = {function.signature.name for function in meta_graph.graph_def.library.function}
        if len(own) < len(meta_graph.graph_def.library.function):
            raise InputError(
                f"{directory}: the SavedModel can't be loaded (two functions of one name); export it again"
            )
        for where, node in nodes_of(meta_graph.graph_def):
            count += 1
            if node.op in allowed or (where, node.op) in taken:
                continue
            why = _why_refused(node, own)
            if why is not None:
                found.append((_WORST_FIRST.index(why), node.op, where, why))
    if found:
        _, operator, where, why = min(found)  # the order of functions in the file is by chance
        others = sorted({other for _, other, *_ in found} - {operator})
        also = f"refused as well: {', '.join(others)}; " if others else ""
        raise InputError(
            f"{directory}: operator {operator} ({where}) {why}; {also}a model that needs it: --allow-operator "
            f"{operator}, if you trust where it comes from"
        )
    return count


def _links(directory: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(directory):
        yield from (path for name in (*folders, *files) if (path := Path(parent, name)).is_symlink())


def _read(path: Path) -> saved_model_pb2.SavedModel:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path}: {size:,} bytes, more than a protocol buffer may have ({MOST_BYTES:,})")
        saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a protocol buffer"
        raise InputError(f"{path}: the SavedModel can't be loaded ({reason}); export it again") from error
    if not saved_model.meta_graphs:
        raise InputError(f"{path}: the SavedModel can't be loaded (it holds no graph); export it again")
    return saved_model


def _why_refused(node: Any, own: set[str]) -> str | None:
    """Tells why an operator is refused, None where it is not; `own` are the functions of the graph."""
    operator = op_def_registry.get(node.op)
    if operator is None:
        return None if node.op in own else _UNKNOWN
    if node.op == "PrintV2" and node.attr["output_stream"].s in _CONSOLE:
        return None
    for pattern, why in _REFUSED:
        if pattern.fullmatch(node.op):
            return why
    if operator.is_stateful and node.op not in _STATEFUL:
        return _STATE
    return None


def _expected(meta_graph: Any) -> Iterator[tuple[str, str]]:
    """Lists nodes, as places and operators, that a SavedModel has in functions of its saver and vocabularies."""
    graph, objects = meta_graph.graph_def, meta_graph.object_graph_def
    called = {each.gradient_func for each in (*graph.library.gradient, *graph.library.registered_gradients)}
    for node in graph.node:
        called.update(_texts_in(node.attr))
    for function in graph.library.function:
        if _INTERCHANGEABLE in function.attr:
            called.add(function.signature.name)
        called.update([*_functions_in(function.attr), *_texts_in(function.attr)])
        for argument in function.arg_attr.values():
            called.update([*_functions_in(argument.attr), *_texts_in(argument.attr)])
        for node in function.node_def:
            called.update([node.op, *_functions_in(node.attr), *_texts_in(node.attr)])
    reachable = {name for node in objects.nodes for name in _functions_of_object(node)} | set(
        objects.concrete_functions
    )
    saver = _functions_of_saver(meta_graph) - called - reachable
    for function in graph.library.function:
        name = function.signature.name
        files = [node for node in function.node_def if node.op in _TEXT_FILE]
        if name in called or not all(_reads_asset(function, node, objects) for node in files):
            files = []
        of_saver = [node for node in function.node_def if node.op in _SAVER] if name in saver else []
        yield from ((f"node {node.name} of function {name}", node.op) for node in (*files, *of_saver))


def _functions_of_object(node: Any) -> tuple[str, ...]:
    return (
        *node.function.concrete_functions,
        node.bare_concrete_function.concrete_function_name,
        node.captured_tensor.concrete_function,
    )


def _functions_of_saver(meta_graph: Any) -> set[str]:
    """Lists the functions that the graph calls to save and to restore, and for nothing else."""
    saver, by_use = meta_graph.saver_def, {True: set(), False: set()}
    own = {name.partition(":")[0] for name in (saver.save_tensor_name, saver.restore_op_name)}
    for node in meta_graph.graph_def.node:
        by_use[node.name in own].update(_functions_in(node.attr))
    return by_use[True] - by_use[False]


def _functions_in(attributes: Mapping[str, Any]) -> Iterator[str]:
    for attribute in attributes.values():
        for function in (attribute.func, *attribute.list.func):
            yield function.name
            yield from _functions_in(function.attr)


def _texts_in(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yields every text of attributes: some name functions, such as `forward_function_name`."""
    for attribute in attributes.values():
        for text in (attribute.s, *attribute.list.s):
            yield text.decode(errors="replace")  # what is not UTF-8 names no function
        for function in (attribute.func, *attribute.list.func):
            yield from _texts_in(function.attr)


def _reads_asset(function: Any, node: Any, objects: Any) -> bool:
    """Tells whether the path of a table's text file is an argument that is bound to an asset."""
    arguments = [argument.name for argument in function.signature.input_arg]
    name = function.signature.name
    if name not in objects.concrete_functions or len(node.input) < 2 or node.input[1] not in arguments:
        return False
    bound = objects.concrete_functions[name].bound_inputs  # of the last arguments
    place = arguments.index(node.input[1]) - (len(arguments) - len(bound))
    return place >= 0 and 0 <= bound[place] < len(objects.nodes) and objects.nodes[bound[place]].HasField("asset")
