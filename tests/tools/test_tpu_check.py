"""`tfpipe tpu-check`: what it counts, what it refuses, and a real compile of a tiny step; nothing here needs a TPU."""

from __future__ import annotations

import importlib.metadata
import json
import sys

import pytest
import tensorflow as tf
from conftest import tiny_config, write_encoder

from tfpipe.config.file import dump_config
from tfpipe.encoders.architecture import Architecture
from tfpipe.errors import GateError, InputError
from tfpipe.rundir.directory import RunDirectory
from tfpipe.tools.tpu_check import batch as tpu_batch
from tfpipe.tools.tpu_check import check as tool
from tfpipe.tools.tpu_check import compile as tpu_compile
from tfpipe.tools.tpu_check import hlo as tpu_hlo
from tfpipe.tools.tpu_check import lower as tpu_lower
from tfpipe.tools.tpu_check import report as tpu_report
from tfpipe.tools.tpu_check.report import CHIPS, GIB, parse_topology


def _has_compiler() -> bool:
    try:
        tpu_compile.check_installed()
    except InputError:
        return False
    return True


compiles = pytest.mark.skipif(not _has_compiler(), reason="tfpipe[tpu-check] is not installed: no TPU compiler")

# As libtpu writes it, shortened. Tiles are 8 x 128: f32[10,100] takes 16 x 128 x 4 bytes.
HLO = """\
HloModule step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

%slices (param_0: f32[512,128], param_1: f32[8,128]) -> f32[8,128] {
  %param_0 = f32[512,128]{1,0:T(8,128)} parameter(0)
  %param_1 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %bitcast.1 = f32[512,128]{1,0:T(8,128)} bitcast(%param_0)
  %slice.1 = f32[8,128]{1,0:T(8,128)} slice(%bitcast.1), slice={[0:8], [0:128]}
  %slice.2 = f32[8,128]{1,0:T(8,128)} slice(%param_0), slice={[8:16], [0:128]}
  %add.1 = f32[8,128]{1,0:T(8,128)} add(%slice.1, %slice.2)
  ROOT %add.2 = f32[8,128]{1,0:T(8,128)} add(%add.1, %param_1)
}

%updates (param_0.1: f32[512,128], param_1.1: f32[8,128], param_2.1: s32[]) -> f32[512,128] {
  %param_0.1 = f32[512,128]{1,0:T(8,128)} parameter(0)
  %param_1.1 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %param_2.1 = s32[]{:T(128)S(6)} parameter(2)
  ROOT %update.1 = f32[512,128]{1,0:T(8,128)} dynamic-update-slice(%param_0.1, %param_1.1, %param_2.1, %param_2.1)
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%state), index=0
  %value = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %negate.1 = f32[8,128]{1,0:T(8,128)} negate(%value), backend_config={"window_config":{"estimated_cycles":"70"}}
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%count, %negate.1)
}

%condition (state.1: (s32[], f32[8,128])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count.1 = s32[]{:T(128)S(6)} get-tuple-element(%state.1), index=0
  %limit = s32[]{:T(128)S(6)} constant(12)
  ROOT %less = pred[]{:T(512)S(6)} compare(%count.1, %limit), direction=LT
}

%one (x.1: f32[8,128]) -> f32[8,128] {
  %x.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %negate.2 = f32[8,128]{1,0:T(8,128)} negate(%x.1)
}

%two (x.2: f32[8,128]) -> f32[8,128] {
  %x.2 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %abs.1 = f32[8,128]{1,0:T(8,128)} abs(%x.2)
  ROOT %negate.3 = f32[8,128]{1,0:T(8,128)} negate(%abs.1)
}

ENTRY %main (Arg_0.1: f32[512,128], Arg_1.2: f32[8,128], Arg_2.3: f32[10,100], Arg_3.4: pred[]) -> (f32[512,128]) {
  %Arg_0.1 = f32[512,128]{1,0:T(8,128)} parameter(0), metadata={op_name="XLA_Args"}
  %Arg_1.2 = f32[8,128]{1,0:T(8,128)} parameter(1)
  %Arg_2.3 = f32[10,100]{1,0:T(8,128)} parameter(2)
  %Arg_3.4 = pred[]{:T(512)} parameter(3)
  %zero = s32[]{:T(128)S(6)} constant(0)
  %padded = bf16[10,100]{1,0:T(8,128)(2,1)} convert(%Arg_2.3)
  %copy-start = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%Arg_1.2)
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-start = ((f32[512,128]{1,0:T(8,128)}), f32[16,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%Arg_0.1), \
slice={[0:16], [0:128]}
  %slice-done = f32[16,128]{1,0:T(8,128)S(1)} slice-done(%slice-start)
  %joined = f32[32,128]{1,0:T(8,128)S(1)} custom-call(%slice-done, %slice-done), custom_call_target="ConcatBitcast"
  %in_vmem = f32[32,128]{1,0:T(8,128)S(1)} negate(%joined)
  %sliced = f32[8,128]{1,0:T(8,128)} fusion(%Arg_0.1, %copy-done), kind=kLoop, calls=%slices, \
backend_config={"window_config":{"estimated_cycles":"300"}}
  %updated = f32[512,128]{1,0:T(8,128)} fusion(%Arg_0.1, %sliced, %zero), kind=kLoop, calls=%updates
  %loop.0 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %sliced)
  %known = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%loop.0), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"12"}}
  %unknown = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%known), condition=%condition, body=%body
  %value.2 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%unknown), index=1
  %chosen = f32[8,128]{1,0:T(8,128)} conditional(%Arg_3.4, %value.2, %value.2), true_computation=%one, \
false_computation=%two
  ROOT %result = (f32[512,128]{1,0:T(8,128)}) tuple(%updated)
}
"""
TILE = 8 * 128 * 4


class TestHlo:
    def test_each_instruction_moves_what_is_its_own(self):
        module = tpu_hlo.Module(HLO)
        moved = {each.name: size for size, each in module.largest(99) if size}
        assert moved == {
            "padded": 2 * TILE + TILE,  # 16 x 128, read as float32 and written as bfloat16
            "copy-start": TILE,  # read; written to VMEM
            "slice-start": 2 * TILE,  # what it takes, not the 64 tiles that it takes it from
            "sliced": 2 * TILE + TILE,  # two slices, read; the result, written
            "updated": TILE + 2 * TILE,  # the update, read; its place, read and written
            "known": 12 * 2 * TILE,
            "unknown": 2 * TILE,
            "chosen": 4 * TILE,  # the larger branch
        }

    def test_the_whole(self):
        traffic = tpu_hlo.Module(HLO).traffic()
        assert traffic == tpu_hlo.Traffic(
            hbm_bytes=(3 + 1 + 2 + 3 + 3 + 24 + 2 + 4) * TILE,
            unknown_loops=1,
            estimated_cycles=300 + 12 * 70 + 70,
        )

    def test_what_is_read_whole_beside_a_slice_counts_whole(self):
        text = HLO.replace("add(%add.1, %param_1)", "add(%add.1, %param_0)")
        moved = {each.name: size for size, each in tpu_hlo.Module(text).largest(99)}
        assert moved["sliced"] == 64 * TILE + TILE

    @pytest.mark.parametrize(
        ("shape", "size_bytes", "space"),
        [
            ("f32[10,100]{1,0:T(8,128)}", 16 * 128 * 4, 0),
            ("f32[10,100]{0,1:T(8,128)}", 104 * 128 * 4, 0),  # the first dimension is the minor one
            ("bf16[2,3,64]{2,1,0:T(8,128)(2,1)S(1)}", 2 * 8 * 128 * 2, 1),
            ("pred[5]{0:T(1024)}", 1024, 0),
            ("s32[]{:T(128)S(6)}", 4, 6),
            ("f32[3,5]", 60, 0),
            ("s4[16]{0}", 8, 0),
        ],
    )
    def test_sizes_are_those_of_the_layout(self, shape, size_bytes, space):
        assert list(tpu_hlo._buffers(shape)) == [tpu_hlo.Buffer(size_bytes, space)]

    def test_another_text_is_refused(self):
        with pytest.raises(ValueError, match="no ENTRY"):
            tpu_hlo.Module("module @m {}")


class TestTopology:
    @pytest.mark.parametrize(
        ("name", "chips", "fewest_links"),
        [
            ("v5e:1x1", 1, 0),
            ("v5e:2x4", 8, 2),  # the chip in a corner
            ("v5e:8x16", 128, 3),  # the dimension of 16 is a ring
            ("v6e:16x16", 256, 4),
            ("v4:2x2x1", 4, 2),
            ("v4:2x4x4", 32, 3),  # a ring needs all dimensions to be multiples of 4
            ("v5p:4x4x8", 128, 6),
        ],
    )
    def test_chips_and_links(self, name, chips, fewest_links):
        topology = parse_topology(name)
        assert (topology.name, topology.chips, topology.fewest_links) == (name, chips, fewest_links)

    @pytest.mark.parametrize("name", ["v5e:2x3", "v5e", "v5e:", "v4:2x2", "v6e:2x2x1"])
    def test_another_shape_names_those_that_are_known(self, name):
        with pytest.raises(InputError, match=r"--topology v.*: v\d\w? comes as \d+x\d+.*, \d+x\d+") as error:
            parse_topology(name)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("name", ["", "v3:2x2", "h100:8", "2x4"])
    def test_another_chip_names_those_that_are_known(self, name):
        with pytest.raises(InputError, match=r"such as v4:2x2x1, v5e:1x1, v5p:2x2x1, v6e:1x1$"):
            parse_topology(name)

    def test_what_libtpu_is_told(self):
        assert tpu_compile.topology_options("v5e:2x4") == {}
        assert tpu_compile.topology_options("v6e:1x1") == {"chips_per_host_bounds": (1, 1, 1)}
        assert tpu_compile.topology_options("v4:2x2x1") == {"chip_config_name": "megacore"}


ANSWER = {
    "compiled": True,
    "seconds": 1.0,
    "memory": {"arguments": 4 * GIB, "outputs": 5 * GIB, "alias": 4 * GIB, "temporary": 2 * GIB, "code": GIB},
    "flops": 1970 * 10**9,  # 10 ms on a v5e
    "hbm_bytes": 4100 * 10**6,  # 5 ms
    "xla_bytes_accessed": 16400 * 10**6,  # 20 ms
    "unknown_loops": 0,
    "estimated_cycles": 60 * 10**6,  # 40 ms
}
BATCH = {"rows": 16, "row_length": 128, "examples_per_row": 4.0, "gradient_bytes": 400 * 10**6}


class TestReport:
    def test_one_chip(self):
        found = tpu_report.report(parse_topology("v5e:1x1"), ANSWER, **BATCH)
        assert found["fits"] and found["needed_hbm_bytes"] == 8 * GIB
        assert found["arithmetic_seconds"] == pytest.approx(0.010) and found["all_reduce_seconds"] == 0.0
        first, second, third = (found[name] for name in ("by_hbm_bytes", "by_xla_bytes", "estimate"))
        assert (first["memory_seconds"], first["step_seconds"]) == (pytest.approx(0.005), pytest.approx(0.010))
        assert first["utilisation"] == pytest.approx(1.0)
        assert (second["step_seconds"], second["utilisation"]) == (pytest.approx(0.020), pytest.approx(0.5))
        assert (third["step_seconds"], third["utilisation"]) == (pytest.approx(0.040), pytest.approx(0.25))
        assert second["examples_per_second"] == pytest.approx(3200) == second["examples_per_second_per_chip"]
        assert second["tokens_per_second"] == pytest.approx(102_400)

    def test_several_chips_add_the_all_reduce(self):
        found = tpu_report.report(parse_topology("v5e:2x4"), ANSWER, **BATCH)
        # 2 * 7/8 of 400 MB over two links of 50 GB/s
        assert found["all_reduce_seconds"] == pytest.approx(0.007)
        bound = found["by_hbm_bytes"]
        assert (bound["step_seconds"], bound["utilisation"]) == (pytest.approx(0.017), pytest.approx(10 / 17))
        assert bound["examples_per_second"] == pytest.approx(8 * 64 / 0.017)
        assert bound["tokens_per_second_per_chip"] == pytest.approx(16 * 128 / 0.017)

    def test_outputs_that_take_nobodys_place_may_be_too_much(self):
        memory = ANSWER["memory"] | {"outputs": 13 * GIB}
        found = tpu_report.report(parse_topology("v5e:1x1"), ANSWER | {"memory": memory}, **BATCH)
        assert not found["fits"] and tpu_report.verdict(found) == "does not fit: 16.00 of 15.75 GiB"
        assert tpu_report.report(parse_topology("v6e:1x1"), ANSWER | {"memory": memory}, **BATCH)["fits"]

    def test_the_table_has_a_column_for_each_topology(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "160")
        failed = {"compiled": False, "seconds": 1.0, "reason": "out of memory", "needed_hbm_bytes": 17 * GIB}
        reports = [
            tpu_report.report(parse_topology(name), answer, **BATCH)
            for name, answer in (("v5e:1x1", failed), ("v5e:2x4", ANSWER), ("v5p:2x2x1", ANSWER))
        ]
        tpu_report.print_table(reports)
        printed = capsys.readouterr().out
        lines = [line for line in printed.splitlines() if "v5e" in line]
        assert len(lines) == 1 and all(found["topology"] in lines[0] for found in reports)
        cells = {
            row[0].strip(): [cell.strip() for cell in row[1:]]
            for line in printed.splitlines()
            if len(row := line.split("│")[1:-1]) == 4
        }
        assert cells["fits"] == ["no", "yes", "yes"]
        assert cells["HBM needed, GiB"] == ["over 17.0", "8.00", "8.00"]
        assert cells["HBM usable, GiB"] == ["15.8", "15.8", "95.7"]
        assert cells["all-reduce, ms"] == ["", "7.00", "3.00"]
        assert cells["utilisation, at most"][:2] == ["", "58.8%"]

    def test_peaks_are_those_of_the_clock(self):
        # v4 and v5p: two cores of four units of 128 x 128; v5e: one
        for chip, units in (("v4", 8), ("v5e", 4), ("v5p", 8)):
            assert CHIPS[chip].cycles_per_second * units * 2 * 128**2 == pytest.approx(
                CHIPS[chip].flops_per_second, rel=0.01
            )


OUT_OF_MEMORY = """\
RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 16.12G of 15.75G hbm. \
Exceeded hbm capacity by 386.00M.

Total hbm usage >= 16.38G:
    reserved        258.00M
    program           4.00G
    arguments        12.12G

Output size 1.50G; shares 512.00M with arguments.

Program hbm requirement 4.00G:
    HLO temp          4.00G (100.0% utilization: Unpadded (4.00G) Padded (4.00G), 0.0% fragmentation (0B))

  Largest program allocations in hbm:

  1. Size: 2.00G
     Operator: op_name="bert/context/Softmax" source_file="-" source_line=3
     Shape: bf16[32768,32768]{1,0:T(8,128)(2,1)}
     Unpadded size: 2.00G
     XLA label: fusion = fusion(Arg_0.1), kind=kOutput, calls=fused_computation
     Allocation type: HLO temp
     ==========================

  2. Size: 16.0K
     Shape: f32[4096]{0}
     Unpadded size: 16.0K
     Allocation type: HLO temp
     ==========================
"""


class TestCompilerMessages:
    def test_out_of_memory(self):
        found = tpu_compile.explain(OUT_OF_MEMORY)
        assert found["needed_hbm_bytes"] == round((16.12 + 1.5 - 0.5) * GIB)  # the compiler leaves outputs out
        assert found["available_hbm_bytes"] == round(15.75 * GIB)
        assert found["reason"] == "out of memory: at least 17.12 GiB of 15.75"
        assert found["largest"] == [
            {"size_bytes": 2 * GIB, "shape": "bf16[32768,32768]", "operator": "bert/context/Softmax"},
            {"size_bytes": 16 * 1024, "shape": "f32[4096]", "operator": ""},
        ]

    def test_anything_else_is_one_line(self):
        vmem = "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 140.00M of 128.00M vmem."
        assert tpu_compile.explain(vmem) == {"reason": "out of memory in vmem: needs 140.00M of 128.00M"}
        other = "UNIMPLEMENTED: no such\n\n  call target"
        assert tpu_compile.explain(other) == {"reason": "UNIMPLEMENTED: no such"}
        assert tpu_compile.explain("") == {"reason": "no reason given"}

    def test_copies_become_their_operands_within_a_function(self):
        text = (
            "func.func private @f(%arg0: tensor<f32>) -> tensor<f32> {\n"
            "  %0 = mhlo.copy %arg0 : tensor<f32> loc(#loc1)\n"
            "  %1 = mhlo.copy %0 : tensor<f32> loc(#loc1)\n"
            "  return %1 : tensor<f32>\n"
            "}\n"
            "func.func @main(%arg0: tensor<f32>) -> tensor<f32> {\n"
            "  %0:2 = stablehlo.sort(%arg0, %arg0)\n"
            "  %1 = mhlo.copy %0#1 : tensor<f32>\n"
            "  %10 = stablehlo.add %1, %0#1 : tensor<f32>\n"
            "  return %10 : tensor<f32>\n"
        )
        assert tpu_compile.without_copies(text) == (
            "func.func private @f(%arg0: tensor<f32>) -> tensor<f32> {\n"
            "  return %arg0 : tensor<f32>\n"
            "}\n"
            "func.func @main(%arg0: tensor<f32>) -> tensor<f32> {\n"
            "  %0:2 = stablehlo.sort(%arg0, %arg0)\n"
            "  %10 = stablehlo.add %0#1, %0#1 : tensor<f32>\n"
            "  return %10 : tensor<f32>\n"
        )

    def test_another_release_is_refused_in_one_line(self, monkeypatch):
        monkeypatch.setattr(tpu_compile, "PINNED", {"numpy": "0.0.1"})
        found = importlib.metadata.version("numpy")
        with pytest.raises(InputError, match=rf"needs numpy 0\.0\.1, found {found}; install tfpipe\[tpu-check\]"):
            tpu_compile.check_installed()
        monkeypatch.setattr(tpu_compile, "PINNED", {"no-such-package": "1"})
        with pytest.raises(InputError, match="found none"):
            tpu_compile.check_installed()

    def test_a_broken_process_is_a_reason(self, monkeypatch):
        monkeypatch.setattr(sys, "executable", "/bin/false")
        (answer,) = tpu_compile.compile_for("module {}", ["v5e:1x1"]).values()
        assert answer == {"compiled": False, "reason": "the compiler's process ended with exit code 1: nothing said"}


FOUR = [tf.TensorSpec([4], tf.float32)]


class TestLowering:
    @pytest.mark.parametrize(
        ("step", "said"),
        [
            (lambda x: tf.numpy_function(lambda a: a, [x], tf.float32), r"PyFunc \(operator PyFunc\): XLA has no such"),
            (lambda x: tf.py_function(lambda a: a, [x], tf.float32), r"EagerPyFunc \(operator EagerPyFunc\)"),
            (lambda x: tf.strings.to_number(tf.strings.as_string(x, name="shown")), r"AsString \(operator shown\)"),
            (lambda x: tf.cast(tf.reduce_sum(tf.cast(x, tf.float64), name="wide"), tf.float32), "float64 in .*wide"),
            (lambda x: tf.gather(x, tf.where(x > 0.0, name="found")), "a shape that depends on values in .*found"),
        ],
        ids="numpy python string float64 dynamic".split(),
    )
    def test_what_no_tpu_runs_is_named_in_one_line(self, step, said):
        with pytest.raises(GateError, match=said) as error:
            tpu_lower.lower(step, FOUR)
        assert "\n" not in str(error.value)

    def test_an_open_shape_is_refused(self):
        with pytest.raises(GateError, match="shape is not known before the step runs"):
            tpu_lower.lower(lambda x: x + 1.0, [tf.TensorSpec([None], tf.float32)])

    def test_a_clean_step(self):
        text = tpu_lower.lower(lambda x: tf.nn.softmax(x), FOUR)
        assert "stablehlo.exponential" in text and tpu_lower.problems(text) == []

    def test_other_exceptions_are_cut_to_a_line(self):
        said = tpu_lower.explain("Shapes differ: [2] and [3]\n\t {{node outer/add}}\nstack")
        assert said == "Shapes differ: [2] and [3] (operator outer/add)"


class TestLargestBatch:
    def search(self, needed_at, available=1000, start=8, grain=8):
        tried = []

        def counted(rows):
            assert rows not in tried and rows % grain == 0
            tried.append(rows)
            return needed_at(rows)

        return tool.search_largest(counted, available, start, grain), tried

    @pytest.mark.parametrize("start", [1, 8, 100, 320, 4000])
    @pytest.mark.parametrize("gives_up", [True, False])
    def test_a_line_takes_a_few_tries(self, start, gives_up):
        def needed(rows):
            return None if gives_up and 100 + 2.5 * rows > 1000 else round(100 + 2.5 * rows)

        rows, tried = self.search(needed, start=start)
        assert rows == 360 and len(tried) <= 8
        assert 368 in tried  # what is said not to fit was tried

    def test_near_the_limit_the_compiler_computes_again(self):
        rows, tried = self.search(
            lambda rows: 100 + 2 * rows if rows < 400 else 900 + rows // 100 if rows < 4000 else None
        )
        assert 3992 - 3992 // 64 <= rows <= 3992 and len(tried) <= 15

    def test_none_fits(self):
        assert self.search(lambda rows: None)[0] is None
        assert self.search(lambda rows: 2000, start=64)[0] is None

    def test_another_grain(self):
        assert self.search(lambda rows: 10 * rows, grain=24)[0] == 96


class TestShapes:
    @pytest.fixture
    def architecture(self, tiny_encoder):
        return Architecture.from_dict(json.loads((tiny_encoder / "config.json").read_text()))

    def shapes(self, config, run, architecture, topologies=("v5e:1x1",), rows=None, row_length=None):
        chosen = [parse_topology(name) for name in topologies]
        return tpu_batch.batch_shapes(config, RunDirectory(run), architecture, chosen, rows, row_length, "tiny.yaml")

    def test_those_of_the_run(self, tiny_run, architecture):
        found = self.shapes(*tiny_run, architecture, ("v5e:1x1", "v5e:2x2"))
        one, four = found["v5e:1x1"], found["v5e:2x2"]
        assert one.rows <= 4 * four.rows < one.rows + 4 and one.row_length == four.row_length == 64
        assert one.num_labels == 2 and one.slots > 1 and one.vocab_size < architecture.vocab_size
        assert 1.0 < one.examples_per_row <= one.slots
        assert self.shapes(*tiny_run, architecture, rows=40)["v5e:1x1"].rows == 40

    def test_those_that_are_given(self, tiny_reviews, tiny_encoder, tmp_path, architecture):
        def shape(rows, row_length, **changes):
            config = tiny_config(tiny_reviews, tiny_encoder, **changes)
            return self.shapes(config, tmp_path, architecture, rows=rows, row_length=row_length)["v5e:1x1"]

        found = shape(10, 64)
        assert (found.rows, found.row_length, found.slots, found.num_labels) == (10, 64, 2, 2)
        assert found.vocab_size == architecture.vocab_size and found.examples_per_row == 2.0
        assert shape(10, 64, train__gradient_accumulation=4).rows == 12
        assert shape(8, 64, train__batching="padded").slots == 1
        with pytest.raises(InputError, match="the encoder has 64 positions"):
            shape(8, 128, train__batching="padded")

    def test_neither_is_one_line(self, tiny_run, tmp_path, architecture):
        config, run = tiny_run
        for rows in (None, 8):
            with pytest.raises(InputError, match=r"run `tfpipe prepare tiny\.yaml`, or give both --rows and --row-len"):
                self.shapes(config, tmp_path, architecture, rows=rows)
        with pytest.raises(InputError, match=r"--row-length: goes with --rows.*--set train\.row_length=N"):
            self.shapes(config, run, architecture, row_length=64)

    def test_a_run_of_other_settings(self, tiny_run, architecture):
        config, run = tiny_run
        other = config.model_copy(update={"data": config.data.model_copy(update={"max_length": 48})})
        with pytest.raises(
            InputError, match=r"was made with another data\.max_length; run `tfpipe prepare tiny\.yaml`"
        ):
            self.shapes(other, run, architecture)

    def test_several_shapes_and_rows_that_do_not_divide(self, tiny_run, architecture):
        config, run = tiny_run
        bucketed = config.model_copy(update={"train": config.train.model_copy(update={"batching": "bucketed"})})
        with pytest.raises(InputError, match=r"bucketed has a program for each length of a row \(8, 16, .*--rows"):
            self.shapes(bucketed, run, architecture)
        with pytest.raises(InputError, match=r"v5e:16x16: train\.batch_size: a batch has .*; or give --rows"):
            self.shapes(config, run, architecture, ("v5e:16x16",))


@pytest.fixture
def config_file(tmp_path, tiny_reviews, tiny_encoder):
    config = tiny_config(tiny_reviews, tiny_encoder, train__precision="auto", train__gradient_accumulation=2)
    (tmp_path / "tiny.yaml").write_text(dump_config(config))
    return tmp_path / "tiny.yaml"


class TestCommand:
    def test_wrong_options_are_said_before_any_work(self, config_file):
        with pytest.raises(InputError, match="--topology v5e:3x3"):
            tool.run(config_file, ["v5e:1x1", "v5e:3x3"])
        with pytest.raises(InputError, match="--rows 0: at least 1"):
            tool.run(config_file, ["v5e:1x1"], rows=0)
        with pytest.raises(InputError, match="mixed_float16 is for GPUs"):
            tool.run(config_file, ["v5e:1x1"], overrides=["train.precision=mixed_float16"])

    @compiles
    def test_a_tiny_step_compiles(self, config_file, tmp_path, capsys):
        file = tmp_path / "check.json"
        tool.run(config_file, ["v5e:1x1", "v5e:2x4"], rows=16, row_length=64, json_file=file)
        written = json.loads(file.read_text())
        assert written["precision"] == "mixed_bfloat16" and written["versions"]["libtpu"] == "0.0.14"
        one, eight = written["topologies"]
        assert one["fits"] and one["memory"] == eight["memory"] and eight["chips"] == 8
        # the variables and their two moments, and next to nothing else
        parameters = one["memory"]["alias"] / 12
        assert 20_000 < parameters < 120_000
        # two for each multiplication: forward, and twice as much backward
        assert one["flops"] > 6 * 16 * 64 * 2 * (4 * 32 * 32 + 2 * 32 * 64) / 2
        assert 0 < one["hbm_bytes"] < one["xla_bytes_accessed"] and one["unknown_loops"] == 0
        assert one["estimated_cycles"] > 0 and one["all_reduce_seconds"] == 0.0 < eight["all_reduce_seconds"]
        printed = capsys.readouterr()
        assert "v5e:2x4" in printed.out and "compiling" in printed.err
        assert printed.err.count("lowering") == 1  # one program for both

    @compiles
    def test_what_does_not_fit_fails_the_gate(self):
        size = 2**17
        program = (
            f"module @m {{ func.func public @main(%a: tensor<{size}x{size}xf32>) -> tensor<{size}x{size}xf32> {{\n"
            f"  return %a : tensor<{size}x{size}xf32>\n}} }}\n"
        )
        answers = tpu_compile.compile_for(program, ["v5e:1x1"])
        found = tpu_report.report(parse_topology("v5e:1x1"), answers["v5e:1x1"], **BATCH)
        assert not found["fits"] and found["needed_hbm_bytes"] >= 64 * GIB
        assert found["available_hbm_bytes"] == CHIPS["v5e"].usable_hbm_bytes


@pytest.mark.slow
@compiles
def test_minilm_on_four_topologies(tmp_path, tiny_reviews):
    """The shape of MiniLM-L6, a step of 64 rows a chip."""
    encoder = write_encoder(
        tmp_path / "minilm",
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
    )
    (tmp_path / "minilm.yaml").write_text(dump_config(tiny_config(tiny_reviews, encoder, train__precision="auto")))
    reports = tool.run(tmp_path / "minilm.yaml", ["v5e:1x1", "v5e:2x4", "v4:2x2x1", "v6e:1x1"], rows=64, row_length=128)
    tokens = 64 * 128
    for found in reports:
        assert found["fits"] and found["unknown_loops"] == 0
        # six for each weight of the layers and token, and attention; the last layer is less
        assert 5 * 6 * (4 * 384**2 + 2 * 384 * 1536) * tokens < found["flops"]
        assert 0.0 < found["by_xla_bytes"]["utilisation"] <= found["by_hbm_bytes"]["utilisation"] <= 1.0
        assert found["estimate"]["utilisation"] < found["by_hbm_bytes"]["utilisation"]
