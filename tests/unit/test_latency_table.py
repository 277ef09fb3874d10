"""Layer timings: grids, interpolation, and the cache. The device here computes its times from a formula."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.contracts import Progress, Runtime, Silent
from toolchain.errors import DeviceError, InputError
from toolchain.latency.filling import ANCHORS, BATCH, build_table
from toolchain.latency.table import Axes, LatencyTable, grid, is_depthwise, shape_key
from toolchain.values import Conditions, Layer, Precision

RUNTIME = Runtime(name="formula", format="onnx", precisions=("fp32",), align=4)
CONVOLUTION = Layer(
    node="conv",
    kind="conv",
    weight="conv.weight",
    in_channels=16,
    out_channels=32,
    kernel=(3, 3),
    stride=(1, 1),
    padding=(1, 1),
    dilation=(1, 1),
    input_size=(8, 8),
    output_size=(8, 8),
)
DEPTHWISE = replace(CONVOLUTION, node="dw", in_channels=32, out_channels=32, groups=32)
LINEAR = Layer(node="fc", kind="linear", weight="fc.weight", in_channels=32, out_channels=10)


class Formula:
    """A device whose layers take 1 us a channel product, counts what it is asked, and can fail or refuse."""

    def __init__(
        self, version: str = "1", cpu: str = "one", fail_after: int | None = None, slowness: float = 1.0
    ) -> None:
        self.asked: list[Layer] = []
        self.slowness = slowness
        self.version, self.cpu, self.fail_after = version, cpu, fail_after

    def conditions(self, runtime: Runtime, threads: int) -> Conditions:
        return Conditions(
            device="formula",
            os="none",
            cpu=self.cpu,
            governor=None,
            frequency_mhz=float(len(self.asked)),
            load=None,
            threads=threads,
            runtime=runtime.name,
            runtime_version=self.version,
        )

    def measure(self, artifacts: object, protocol: object, progress: Progress) -> tuple[()]:
        raise NotImplementedError

    def probe(
        self,
        runtime: Runtime,
        precision: Precision,
        layers: Sequence[Layer],
        *,
        threads: int,
        progress: Progress,
    ) -> tuple[float | None, ...]:
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise DeviceError("unplugged")
        self.asked += layers
        return tuple(None if a.transposed else formula_ms(a) * self.slowness for a in layers)


def formula_ms(layer: Layer) -> float:
    return layer.in_channels * layer.out_channels / layer.groups / 1000


def grids_of(layers: Sequence[Layer]) -> dict[str, Axes]:
    return {
        layer.node: Axes(inputs=grid(layer.in_channels, 4), outputs=grid(layer.out_channels, 4))
        for layer in layers
    }


def table(device: Formula, cache: Path, layers: Sequence[Layer]) -> LatencyTable:
    grids = grids_of(layers)
    return build_table(device, RUNTIME, "fp32", layers, grids, threads=1, cache=cache, progress=Silent())


@given(st.integers(1, 3000), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_a_grid_ascends_to_the_full_width_and_stays_small(full: int, align: int) -> None:
    widths = grid(full, align)
    assert widths[-1] == full
    assert list(widths) == sorted(set(widths))
    assert all(width > 0 for width in widths)
    assert len(widths) <= 40
    if full >= 2 * align:
        assert all(width % align == 0 for width in widths[:-1])


def test_grid_points_are_exact_and_points_between_are_bilinear(tmp_path: Path) -> None:
    found = table(Formula(), tmp_path, [CONVOLUTION])
    assert found.layer_ms(CONVOLUTION, 16, 32) == pytest.approx(0.512)
    assert found.layer_ms(CONVOLUTION, 8, 12) == pytest.approx(0.096)
    assert found.layer_ms(CONVOLUTION, 7, 13) == pytest.approx(0.091)  # the formula is bilinear itself


def test_below_the_grid_there_is_a_floor_and_above_it_proportion(tmp_path: Path) -> None:
    found = table(Formula(), tmp_path, [CONVOLUTION])
    assert found.layer_ms(CONVOLUTION, 1, 32) == found.layer_ms(CONVOLUTION, 4, 32)
    assert found.layer_ms(CONVOLUTION, 32, 32) == pytest.approx(1.024)
    assert found.layer_ms(CONVOLUTION, 0, 32) == 0


@given(inputs=st.integers(1, 40), outputs=st.integers(1, 80), more=st.integers(0, 9))
def test_where_the_measured_points_rise_the_table_never_falls(
    tmp_path_factory: pytest.TempPathFactory, inputs: int, outputs: int, more: int
) -> None:
    found = _SHARED.setdefault(
        "table", table(Formula(), tmp_path_factory.getbasetemp() / "monotone", [CONVOLUTION])
    )
    less = found.layer_ms(CONVOLUTION, inputs, outputs)
    assert less <= found.layer_ms(CONVOLUTION, inputs + more, outputs) + 1e-12
    assert less <= found.layer_ms(CONVOLUTION, inputs, outputs + more) + 1e-12


_SHARED: dict[str, LatencyTable] = {}


def test_a_depthwise_layer_depends_on_its_one_width(tmp_path: Path) -> None:
    device = Formula()
    found = table(device, tmp_path, [DEPTHWISE])
    assert found.layer_ms(DEPTHWISE, 8, 8, 8) == pytest.approx(8 / 1000)
    assert found.layer_ms(DEPTHWISE, 10, 10, 10) == pytest.approx(10 / 1000)
    assert all(layer.groups == layer.in_channels == layer.out_channels for layer in device.asked)
    assert len(device.asked) == len(grid(32, 4)) + ANCHORS  # these again, for the clock


def test_one_channel_is_not_depthwise() -> None:
    assert not is_depthwise(replace(CONVOLUTION, in_channels=1))
    assert is_depthwise(replace(DEPTHWISE, out_channels=64))


def test_grouped_layers_are_timed_at_widths_that_their_groups_divide(tmp_path: Path) -> None:
    grouped = replace(CONVOLUTION, in_channels=24, out_channels=48, groups=3)
    device = Formula()
    found = table(device, tmp_path, [grouped])
    assert all(layer.in_channels % 3 == 0 == layer.out_channels % 3 for layer in device.asked)
    whole = found.layer_ms(grouped, 24, 48, 3)
    assert found.layer_ms(grouped, 16, 32, 2) == pytest.approx(whole * 2 / 3)


def test_equal_shapes_are_timed_once_and_networks_share_the_cache(tmp_path: Path) -> None:
    first = Formula()
    table(first, tmp_path, [CONVOLUTION, replace(CONVOLUTION, node="again")])
    assert len(first.asked) == len({(a.in_channels, a.out_channels) for a in first.asked}) + ANCHORS
    second = Formula()
    other = table(second, tmp_path, [replace(CONVOLUTION, node="elsewhere"), LINEAR])
    assert [layer.kind for layer in second.asked].count("conv") == ANCHORS
    assert other.layer_ms(replace(CONVOLUTION, node="elsewhere"), 16, 32) == pytest.approx(0.512)


@pytest.mark.parametrize("device", [Formula(version="2"), Formula(cpu="another")])
def test_timings_of_other_conditions_are_not_used(tmp_path: Path, device: Formula) -> None:
    table(Formula(), tmp_path, [LINEAR])
    table(device, tmp_path, [LINEAR])
    assert len(device.asked) > 1


def test_timings_of_other_threads_are_not_used(tmp_path: Path) -> None:
    table(Formula(), tmp_path, [LINEAR])
    device = Formula()
    build_table(device, RUNTIME, "fp32", [LINEAR], {}, threads=2, cache=tmp_path, progress=Silent())
    assert len(device.asked) == 2


def test_an_interrupted_build_continues_where_it_stopped(tmp_path: Path) -> None:
    """Fails in its second batch: what the first one timed is not timed again, and its clock is kept."""
    layers = [replace(CONVOLUTION, node=f"conv{k}", input_size=(k, k), output_size=(k, k)) for k in range(30)]
    halted = Formula(fail_after=1)
    with pytest.raises(DeviceError, match="unplugged"):
        table(halted, tmp_path, layers)
    assert BATCH / 2 < len(halted.asked) <= BATCH
    again = Formula(slowness=1.2)
    found = table(again, tmp_path, layers)
    done = {(a.input_size, a.in_channels, a.out_channels) for a in halted.asked}
    twice = [a for a in again.asked if (a.input_size, a.in_channels, a.out_channels) in done]
    assert len(twice) == ANCHORS * len({a.input_size for a in halted.asked})
    for layer in layers:
        assert found.layer_ms(layer, 16, 12) == pytest.approx(0.192 * 1.2)
    assert not list(tmp_path.rglob("*.tmp"))


def test_progress_counts_every_layer_of_the_table_and_never_falls(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Steps(Silent):
        def step(self, done: int, total: int, note: str = "") -> None:
            seen.append((done, total))

    layers = [replace(CONVOLUTION, node=f"conv{k}", input_size=(k, k), output_size=(k, k)) for k in range(30)]
    build_table(
        Formula(), RUNTIME, "fp32", layers, grids_of(layers), threads=1, cache=tmp_path, progress=Steps()
    )
    counted = [done for done, total in seen if total > 1]
    assert len(set(counted)) > 2
    assert counted == sorted(counted)
    assert counted[-1] == seen[0][1]


class Blocks(Formula):
    """Kernels work on 16 outputs at a time, and inputs one by one."""

    def probe(self, runtime, precision, layers, *, threads, progress):  # type: ignore[no-untyped-def]
        wide = [replace(a, out_channels=-(-a.out_channels // 16) * 16) for a in layers]
        return super().probe(runtime, precision, wide, threads=threads, progress=progress)


class SlowPaths(Formula):
    """Depthwise kernels that are not whole blocks of 16 take twice as long, as ONNX Runtime's in int8."""

    def probe(self, runtime, precision, layers, *, threads, progress):  # type: ignore[no-untyped-def]
        times = super().probe(runtime, precision, layers, threads=threads, progress=progress)
        return tuple(
            None if ms is None else ms * (2 if a.out_channels % 16 else 1)
            for a, ms in zip(layers, times, strict=True)
        )


@pytest.mark.parametrize("full", [144, 132])
def test_slow_paths_are_found_and_slow_ends_of_the_grid_do_not_mislead(tmp_path: Path, full: int) -> None:
    wide = replace(DEPTHWISE, in_channels=full, out_channels=full, groups=full)
    found = table(SlowPaths(), tmp_path, [wide])
    for width in (20, 28, 68, 72, 80, 100, 112, 116, full):
        expected = width / 1000 * (2 if width % 16 else 1)
        assert found.layer_ms(wide, width, width, width) == pytest.approx(expected, rel=1e-6), width


def test_between_grid_widths_time_rises_in_the_blocks_of_the_kernels(tmp_path: Path) -> None:
    wide = replace(CONVOLUTION, in_channels=128, out_channels=256)
    found = table(Blocks(), tmp_path, [wide])
    assert 148 not in found.axes["conv"].outputs
    for outputs in (100, 112, 116, 148, 160, 164, 228):
        blocks = -(-outputs // 16) * 16
        for inputs in (64, 68, 90, 100, 128):
            assert found.layer_ms(wide, inputs, outputs) == pytest.approx(inputs * blocks / 1000)


@pytest.mark.parametrize("content", ["", "{", '{"identity": {}}', '{"points": [[1, 2, "nan"]]}'])
def test_a_damaged_cache_is_timed_again(tmp_path: Path, content: str) -> None:
    table(Formula(), tmp_path, [LINEAR])
    for path in tmp_path.rglob("*.json"):
        path.write_text(content)
    device = Formula()
    assert table(device, tmp_path, [LINEAR]).layer_ms(LINEAR, 32, 10) == pytest.approx(0.32)
    assert len(device.asked) > 1


def test_a_number_in_the_cache_that_is_no_time_is_timed_again(tmp_path: Path) -> None:
    table(Formula(), tmp_path, [LINEAR])
    (path,) = tmp_path.rglob("*.json")
    record = json.loads(path.read_text())
    record["points"] = [[i, o, float("nan")] for i, o, _ in record["points"]]
    path.write_text(json.dumps(record))
    assert table(Formula(), tmp_path, [LINEAR]).layer_ms(LINEAR, 32, 10) == pytest.approx(0.32)


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write layer timings"):
        table(Formula(), tmp_path / "file", [LINEAR])


def test_a_layer_that_cannot_be_timed_alone_is_left_out(tmp_path: Path) -> None:
    strange = replace(CONVOLUTION, node="up", transposed=True)
    found = table(Formula(), tmp_path, [strange, LINEAR])
    assert not found.has(strange)
    assert found.has(LINEAR)
    assert found.layer_ms(strange, 16, 32) == 0


def test_keys_tell_shapes_apart_and_leave_widths_out() -> None:
    different = [
        CONVOLUTION,
        replace(CONVOLUTION, stride=(2, 2)),
        replace(CONVOLUTION, padding=(0, 0)),
        replace(CONVOLUTION, kernel=(1, 1)),
        replace(CONVOLUTION, dilation=(2, 2)),
        replace(CONVOLUTION, input_size=(16, 16)),
        replace(CONVOLUTION, groups=2),
        replace(CONVOLUTION, transposed=True),
        replace(CONVOLUTION, bias=False),
        DEPTHWISE,
        LINEAR,
        replace(LINEAR, tokens=50),
    ]
    keys = [shape_key(layer) for layer in different]
    assert len(set(keys)) == len(keys)
    assert shape_key(replace(CONVOLUTION, in_channels=4, out_channels=4)) == keys[0]
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyzT0123456789-") for key in keys)


def test_timings_of_yesterday_are_scaled_to_the_clock_of_today(tmp_path: Path) -> None:
    table(Formula(), tmp_path, [CONVOLUTION, LINEAR])
    today = table(Formula(slowness=1.2), tmp_path, [CONVOLUTION, LINEAR])
    assert today.layer_ms(CONVOLUTION, 8, 12) == pytest.approx(0.096 * 1.2)
    assert today.layer_ms(LINEAR, 16, 10) == pytest.approx(0.16 * 1.2)


def test_points_added_at_another_clock_are_brought_to_that_of_the_known_ones(tmp_path: Path) -> None:
    """A narrow network first, a wider one of the same shapes when the machine is slower, then a fast day."""
    narrow = replace(CONVOLUTION, in_channels=8, out_channels=16)
    table(Formula(), tmp_path, [narrow])
    slow = table(Formula(slowness=1.4), tmp_path, [CONVOLUTION])
    for inputs, outputs in ((8, 16), (12, 20), (16, 32)):
        exact = inputs * outputs / 1000
        assert slow.layer_ms(CONVOLUTION, inputs, outputs) == pytest.approx(exact * 1.4)
    fast = table(Formula(slowness=0.8), tmp_path, [CONVOLUTION, narrow])
    for inputs, outputs in ((8, 16), (12, 20), (16, 32)):
        assert fast.layer_ms(CONVOLUTION, inputs, outputs) == pytest.approx(inputs * outputs / 1000 * 0.8)


def test_a_wild_second_look_does_not_spoil_the_timings(tmp_path: Path) -> None:
    table(Formula(), tmp_path, [LINEAR])
    wild = table(Formula(slowness=40), tmp_path, [LINEAR])
    assert wild.layer_ms(LINEAR, 32, 10) <= 0.32 * 1.5 + 1e-9
