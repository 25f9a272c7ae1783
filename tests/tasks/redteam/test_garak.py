"""garak over HTTP from an environment of its own: a stand-in asks the real tiny model and writes a report in its form."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tasks.core.errors import MissingDependencyError, PerennialError
from tasks.core.storage import open_store
from tasks.modeling.generation import LoadedModel, load_model
from tasks.redteam import GarakConfig
from tasks.redteam.config import RedTeamConfig
from tasks.redteam.garak import probe_with_garak, rates_in
from tasks.redteam.task import garak_rates

STAND_IN = """#!{python}
import json, sys, time, urllib.error, urllib.request
arguments = sys.argv[1:]
if "-c" in arguments:
    print("{version}")
    sys.exit()
assert arguments[:2] == ["-m", "garak"], arguments
given = dict(zip(arguments[2::2], arguments[3::2]))
options = json.load(open(given["--generator_option_file"]))["rest"]["RestGenerator"]
if "{mood}" == "endless":
    time.sleep(600)
assert options["req_template_json_object"] == {{"prompt": "$INPUT"}} and options["response_json_field"] == "text"
entries = [{{"entry_type": "init"}}]
for probe in given["--probes"].split(","):
    body = json.dumps({{"prompt": "Say something " + probe}}).encode()
    for headers in ({{}}, {{"Authorization": "Bearer wrong"}}):
        try:
            urllib.request.urlopen(urllib.request.Request(options["uri"], body, headers), timeout=60)
            sys.exit("strangers are answered")
        except urllib.error.HTTPError as error:
            assert error.code == 401
    with urllib.request.urlopen(urllib.request.Request(options["uri"], body, options["headers"]), timeout=60) as answer:
        assert isinstance(json.load(answer)["text"], str)
    for detector, fails in (("encoding.DecodeMatch", 1), ("mitigation.MitigationBypass", 4)):
        counts = {{"fails": fails, "total_evaluated": 4}}
        entries.append({{"entry_type": "eval", "probe": probe, "detector": detector, **counts}})
if "{mood}" == "broken":
    sys.exit("ValueError: a reply that must stay secret")
entries.append({{"entry_type": "completion"}})
open(given["--report_prefix"] + ".report.jsonl", "w").write("".join(json.dumps(one) + "\\n" for one in entries))
"""


def stand_in(folder: Path, version: str = "0.17.1", mood: str = "calm", minutes: float = 2.0) -> GarakConfig:
    script = folder / "python"
    script.write_text(STAND_IN.format(python=sys.executable, version=version, mood=mood))
    script.chmod(0o755)
    return GarakConfig(python=str(script), probes=("encoding.InjectBase64",), timeout_minutes=minutes)


def test_its_counts_become_rates_and_what_flags_every_refusal_is_left_out(tmp_path: Path, tiny_model_dir: Path) -> None:
    [rate] = probe_with_garak(load_model(tiny_model_dir, None), stand_in(tmp_path), max_new_tokens=8, seed=1)
    assert (rate.name, rate.value, rate.num_samples) == ("garak.encoding.InjectBase64.DecodeMatch", 0.25, 4)
    assert rate.low is not None
    assert 0 < rate.low < 0.25


def test_what_it_found_of_a_model_is_kept_and_it_is_not_asked_again(tmp_path: Path, tiny_model_dir: Path) -> None:
    store, config = open_store(tmp_path / "store"), RedTeamConfig(garak=stand_in(tmp_path), max_new_tokens=8)
    model = load_model(tiny_model_dir, None)

    def loaded() -> LoadedModel:
        return model

    first = garak_rates(store, "a" * 64, loaded, config)
    stand_in(tmp_path, mood="broken")
    assert garak_rates(store, "a" * 64, loaded, config) == first
    with pytest.raises(PerennialError, match="a report"):
        garak_rates(store, "b" * 64, loaded, config)
    stand_in(tmp_path, version="0.18.2", mood="broken")
    with pytest.raises(PerennialError, match="a report"):
        garak_rates(store, "a" * 64, loaded, config)


@pytest.mark.parametrize(("version", "found"), [("0.9.0.1", "garak 0.9.0.1"), ("", "no garak")])
def test_an_environment_without_it_or_with_an_old_one_is_refused(
    tmp_path: Path, tiny_model_dir: Path, version: str, found: str
) -> None:
    with pytest.raises(MissingDependencyError, match=f"found {found}; expected an environment of its own"):
        probe_with_garak(load_model(tiny_model_dir, None), stand_in(tmp_path, version), max_new_tokens=8, seed=1)


def test_an_end_without_a_report_is_an_error_that_quotes_no_reply(tmp_path: Path, tiny_model_dir: Path) -> None:
    loaded = load_model(tiny_model_dir, None)
    with pytest.raises(PerennialError, match="found ValueError; expected a report") as caught:
        probe_with_garak(loaded, stand_in(tmp_path, mood="broken"), max_new_tokens=8, seed=1)
    assert "must stay secret" not in str(caught.value)
    with pytest.raises(PerennialError, match="still running after"):
        probe_with_garak(loaded, stand_in(tmp_path, mood="endless", minutes=0.005), max_new_tokens=8, seed=1)


def test_a_probe_of_which_nothing_was_evaluated_is_not_measured() -> None:
    entries = [
        {"entry_type": "eval", "probe": "dan.Ablation", "detector": "dan.DAN", "fails": 0, "total_evaluated": 0},
        {
            "entry_type": "eval",
            "probe": "goodside.Tag",
            "detector": "base.TriggerListDetector",
            "fails": 2,
            "total_evaluated": 8,
        },
        {"entry_type": "completion"},
    ]
    rates = {rate.name: rate.value for rate in rates_in(map(json.dumps, entries), ("dan.Ablation", "goodside", "lost"))}
    assert rates == {"garak.goodside.Tag.TriggerListDetector": 0.25, "garak.dan.Ablation": None, "garak.lost": None}


def test_an_interpreter_that_is_not_there_is_refused_with_the_configuration() -> None:
    with pytest.raises(ValueError, match="cannot be run"):
        GarakConfig(python="/nowhere/python", probes=("dan",))
    with pytest.raises(ValueError, match="should match pattern"):
        GarakConfig(python=sys.executable, probes=("dan; rm",))
