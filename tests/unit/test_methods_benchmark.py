"""The tables of the methods' benchmark: what is compared, and what the tables say of it."""

import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest
import torch

from benchmarks.methods.panels import Panel, svg
from benchmarks.methods.sparsity import HALF, schedule_of
from benchmarks.methods.sparsity_report import markdown, picture
from benchmarks.methods.special import scores
from benchmarks.methods.vgg import vgg
from benchmarks.schedules import run as schedules
from benchmarks.tables import add, opened


def test_the_vgg_is_of_the_size_that_tables_name():
    assert sum(p.numel() for p in vgg().parameters()) == 193_178
    with torch.no_grad():
        assert vgg().eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["one-shot", "agp"])
def test_late_schedules_do_all_of_it_in_the_second_half(name):
    late, known = schedule_of(HALF + name), schedule_of(name)
    assert late.removed(0.49) == 0
    assert late.removed(0.8) == pytest.approx(known.removed(0.6))
    assert late.removed(1.0) == 1
    assert late.name != known.name


def test_a_network_of_ten_is_also_judged_as_if_it_knew_the_two():
    outputs = torch.tensor([[9.0, 2.0, 1.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [9.0, 9.0, 9.0]])
    data = SimpleNamespace(
        validation=lambda size: iter([((torch.arange(4.0)[:, None],), torch.tensor([1, 1, 1, 0]))])
    )

    def network(x):
        return outputs[x[:, 0].long()]

    found = scores(network, data, [1, 2])
    assert found["samples"] == 3, "the fourth image is of another class"
    assert found["among"] == pytest.approx(200 / 3)
    assert found["of_all"] == pytest.approx(100 / 3)
    assert scores(lambda x: network(x)[:, 1:], data, [1, 2], [0, 1])["of_all"] is None


def record():
    runs = [
        {"history": "fresh", "schedule": name, "sparsity": share, "seed": seed, "last": 40.0 + seed}
        for seed in (0, 1)
        for name, share in (("dense", 0.0), ("agp", 0.8), ("one-cycle", 0.8), ("agp", 0.9))
    ]
    names = ("epochs", "train", "val", "before", "corpus", "corpus_epochs", "batch_size")
    return {"setting": dict.fromkeys(names, 1), "runs": runs}


def test_the_table_has_means_spreads_and_gaps():
    text = markdown(record())
    assert "Dense, the same epochs: 40.5 % (40.0-41.0)." in text
    assert "| agp | 40.5 % (40.0-41.0) | 40.5 % (40.0-41.0) |" in text
    assert "| one-cycle | 40.5 % (40.0-41.0) | not run |" in text


def test_pictures_have_a_dot_for_every_run_and_one_for_the_legend():
    tree = ET.fromstring(picture(record()))
    dots = [e for e in tree.iter() if e.tag.endswith("circle")]
    assert len(dots) == 6 + 2
    side = Panel(title="a < b", x="x", y="y", series={"one": [(1.0, 5.0)]})
    assert "a &lt; b" in svg([side])


def test_a_table_for_each_budget_of_the_schedules():
    run = {"schedule": "agp", "seed": 0, "top1_before": 80.0, "top1": 70.0}
    run["epochs"] = [{"metric": 70.0, "left": 0.4}]
    setting = {"resource": "params", "epochs": 1, "train": 1, "val": 1, "batch_size": 1}
    known = {"setting": setting, "model": "net", "whole": {"macs": 9, "params": 1000}}
    text = schedules.markdown({**known, "runs": [{"share": 0.2, **run}, {"share": 0.05, **run}]})
    assert text.index("## 20% of the parameters") < text.index("## 5% of the parameters")
    assert text.count("| agp | 70.00 % | 70.00 % (40%) |") == 2
    assert "--resource params" in text
    assert "--shares 0.2 0.05" in text


def test_a_record_goes_on_under_its_setting_and_begins_anew_under_another(tmp_path, capsys):
    results = tmp_path / "a.json"
    record = opened(results, {"epochs": 2}, lambda: {"model": "m"})
    add(results, record, {"seed": 0}, lambda r: f"{len(r['runs'])} runs", lambda r: "<svg/>")
    assert capsys.readouterr().out == '{"seed": 0}\n'
    assert (tmp_path / "a.md").read_text() == "1 runs"
    assert (tmp_path / "a.svg").read_text() == "<svg/>"
    again = opened(results, {"epochs": 2}, lambda: {"model": "other"})
    assert again == {"setting": {"epochs": 2}, "model": "m", "runs": [{"seed": 0}]}
    assert opened(results, {"epochs": 3}) == {"setting": {"epochs": 3}, "runs": []}
