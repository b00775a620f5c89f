"""What Linux says about the processor, and what follows for 8-bit products."""

import pytest

from tfpipe.devices import processor


def test_cpu_flags(monkeypatch, tmp_path):
    described = tmp_path / "cpuinfo"
    described.write_text("processor\t: 0\nflags\t\t: fpu sse2 avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    for path, expected in ((described, {"fpu", "sse2", "avx2"}), (tmp_path / "none", set())):
        monkeypatch.setattr(processor, "Path", lambda _, path=path: path)
        assert processor.cpu_flags() == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"avx2", "avx512bw", "avx512_vnni"}, "fast and exact"),
        ({"avx_vnni", "avx2"}, "fast and exact"),
        ({"amx_int8"}, "fast and exact"),
        ({"avx2"}, "may saturate at 16 bits: no VNNI; set quantize.reduce_range: true"),
        ({"sse2"}, "unknown processor"),
        (set(), "unknown processor"),
    ],
)
def test_int8_outlook_follows_the_instruction_set(flags, said):
    assert said in processor.int8_outlook(flags)


@pytest.mark.parametrize(
    ("flags", "overflow"),
    [
        ({"avx2"}, True),
        ({"avx2", "avx512bw"}, True),
        ({"avx2", "avx_vnni"}, False),
        ({"sse4_1"}, False),
        (set(), False),
    ],
)
def test_sums_overflow_with_avx2_and_without_vnni(flags, overflow):
    assert processor.sums_overflow(flags) == overflow
