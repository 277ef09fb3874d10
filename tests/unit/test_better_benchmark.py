"""The comparison with torch-pruning: fair networks, equal latency, and a table that hides nothing."""

import pytest
import torch

from benchmarks.better.contest import SLOWER, deepest
from benchmarks.better.networks import NETWORKS
from benchmarks.better.report import FASTER, best_rival, compared, markdown, picture


def test_the_convolution_is_option_a_shortcut():
    torch.manual_seed(0)
    plain, learning = NETWORKS["resnet20"]().eval(), NETWORKS["resnet20-conv"]().eval()
    missing, unexpected = learning.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[2] for name in missing} == {"shortcut"}
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(learning(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_take_small_images(name):
    with torch.no_grad():
        assert NETWORKS[name]().eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def curve(percent):
    """A true latency that falls in steps of four percent of the channels."""
    return 3.0 * (1 - (percent // 4) * 4 / 100) ** 1.5


@pytest.mark.parametrize("wrong_by", [1.0, 0.6, 1.5])
def test_the_deepest_cut_that_is_as_slow_is_found(wrong_by):
    seen = []

    def measured(percent):
        seen.append(percent)
        return curve(percent)

    percent, ratio = deepest(lambda p: wrong_by * 3.0 * (1 - p / 100) ** 1.5, measured)
    assert FASTER <= ratio == curve(percent)
    best = min(curve(p) for p in range(98) if curve(p) >= FASTER)
    assert ratio <= max(best, SLOWER)
    assert len(seen) <= 8


def test_where_no_cut_is_as_slow_the_slower_one_is_taken():
    def steps(percent):
        return 1.08 if percent < 50 else 0.96

    assert deepest(lambda p: 2.0 - p / 50, steps) == (49, 1.08)


def test_a_much_slower_cut_is_not():
    def steps(percent):
        return 1.3 if percent < 50 else 0.96

    assert deepest(lambda p: 2.0 - p / 50, steps)[1] == 0.96


def test_a_variant_that_breaks_when_cut_deep_is_cut_less():
    def broken(percent):
        if percent > 30:
            raise RuntimeError("a layer without channels")
        return 3.0

    assert deepest(broken, lambda percent: 3.0) == (30, 3.0)


def test_very_deep_cuts_that_are_slow_again_are_not_looked_at():
    def again(percent):
        return 2.0 if percent > 90 else curve(percent)

    percent, ratio = deepest(again, again)
    assert ratio == curve(percent) <= max(min(curve(p) for p in range(98) if curve(p) >= FASTER), SLOWER)


def test_where_the_fastest_cut_predicted_is_too_slow_the_next_are_measured():
    def true(percent):
        return 1.05 if percent == 90 else 1.6

    assert deepest(lambda p: 3.0 - p / 50 if p <= 92 else 2.0, true) == (90, 1.05)


def test_nothing_is_found_where_every_cut_fails():
    def broken(percent):
        raise RuntimeError("a layer without channels")

    assert deepest(broken, broken) == (0, None)


def record():
    tuned = [("edgefit", 0, 80.0), ("edgefit", 1, 82.0), ("taylor local", 0, 70.0), ("taylor local", 1, 72.0)]
    plan = {"whole_ms": 0.8, "p50_ms": 0.19}
    case = {
        "plan": plan,
        "match": {
            "taylor local": {"ratio": 1.01},
            "bn-scale global": {"ratio": None},
            "taylor global": {"ratio": 1.02},
            "magnitude global": {"ratio": 2.6},
        },
        "tuned": [{"who": w, "seed": s, "top1": t} for w, s, t in tuned]
        + [{"who": "taylor global", "seed": 0, "top1": 75.0}],
    }
    waiting = {"plan": None, "match": {}, "tuned": []}
    entry = {"trained": {"top1": 87.0, "epochs": 0}, "cases": {"4": case, "8": waiting}}
    setting = {"epochs": 1, "train": 1000, "batch_size": 64, "lr": 0.05}
    return {"setting": setting, "networks": {"net": entry}}


def test_the_best_rival_is_the_best_of_those_with_most_seeds():
    assert best_rival(record()["networks"]["net"]["cases"]["4"]) == "taylor local"


def test_a_slower_network_is_no_rival():
    case = record()["networks"]["net"]["cases"]["4"]
    case["match"]["taylor local"]["ratio"] = 1.3
    assert best_rival(case) == "taylor global"


def test_the_fastest_is_compared_where_none_is_as_fast():
    case = record()["networks"]["net"]["cases"]["4"]
    case["match"]["taylor local"]["ratio"], case["match"]["taylor global"]["ratio"] = 1.3, 1.4
    assert compared(case) == ["taylor local"]
    assert best_rival(case) == "taylor local"
    entry = record()
    entry["networks"]["net"]["cases"]["4"] = case
    assert "taylor local, slower than Edgefit's" in markdown(entry)
    case["match"]["taylor global"]["ratio"] = 0.8
    assert compared(case) == ["taylor global", "taylor local"]
    case["match"]["magnitude global"]["ratio"] = 1.3
    assert compared(case) == ["taylor global", "taylor local", "magnitude global"]
    for match in case["match"].values():
        match["ratio"] = None
    assert compared(case) == []
    assert best_rival(case) is None


def test_the_table_says_what_was_not_run():
    text = markdown(record())
    row = next(line for line in text.splitlines() if line.startswith("| net | 4x"))
    assert (
        "| 81.00 | 71.00 | 1.010 of Edgefit's | taylor local, best of 2 run (2 get as fast) | +10.00 |" in row
    )
    assert row.endswith("| 2 and 2 |")
    assert "| net | 8x | not run |" in text
    assert "bn-scale global | not reached | not compared |" in text
    assert "magnitude global | 2.600 of Edgefit's, no faster cut found | not compared |" in text
    assert picture(record()).count("<circle") == 3
