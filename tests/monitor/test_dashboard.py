"""The dashboard: Grafana's typed models read all of it, and a real Prometheus answers each of its queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from sparring.monitor import PORT_VARIABLE
from sparring.monitor.exporter import Exporter, Watch
from sparring.monitor.live import serving
from sparring.progress import Progress
from sparring.store import open_store
from tests.monitor import catalogue
from tests.monitor.prometheus import running
from tests.monitor.real_history import History
from tests.monitor.scraping import free_port

ROOT = Path(__file__).parent.parent.parent
BOARD = json.loads((ROOT / "manifests/components/monitoring/dashboard.json").read_text(encoding="utf-8"))
KINDS = {"row", "stat", "table", "timeseries", "bargauge"}
ON_GPUS = {
    "sparring_live_gpu_memory_used_bytes / sparring_live_gpu_memory_bytes",
    "sparring_live_gpu_utilization_ratio",
}
"""Queries that only a machine with a GPU answers."""
PANELS: list[dict[str, Any]] = BOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def test_grafanas_models_know_every_key() -> None:
    back = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(BOARD)))
    assert list(lost(BOARD, back)) == []
    assert list(lost({**BOARD, "titel": "x"}, back)) == ["/titel"]  # the check can fail


def lost(mine: object, back: object, path: str = "") -> Iterator[str]:
    """Paths of what did not survive being read and written again."""
    if isinstance(mine, dict) and isinstance(back, dict):
        for key, value in mine.items():
            yield from lost(value, back[key], f"{path}/{key}") if key in back else [f"{path}/{key}"]
    elif isinstance(mine, list) and isinstance(back, list) and len(mine) == len(back):
        for number, pair in enumerate(zip(mine, back, strict=True)):
            yield from lost(*pair, f"{path}/{number}")
    elif mine != back:
        yield path


def test_panels_are_of_known_kinds_and_do_not_overlap() -> None:
    assert {panel["type"] for panel in PANELS} == KINDS
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not taken & cells, panel["title"]
        taken |= cells


def test_all_asks_the_chosen_data_source_and_known_metrics() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    known = catalogue.names([*catalogue.exported(), *catalogue.live()])
    for panel in PANELS:
        for part in [panel, *panel.get("targets", ())] if panel["type"] != "row" else ():
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert len({target["refId"] for target in panel.get("targets", ())}) == len(panel.get("targets", ()))
    asked = json.dumps([*EXPRESSIONS, *(variable.get("query") for variable in BOARD["templating"]["list"])])
    assert set(re.findall(r"sparring_[a-z0-9_]+", asked)) <= known
    assert set(re.findall(r"\$([a-z]+)", asked)) <= variables


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_real_prometheus_answers_each_query(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    monkeypatch.delenv("RANK", raising=False)
    with Exporter(Watch(open_store(history.url), None), "127.0.0.1", 0, 1.0) as exporter, serving("selfplay") as told:
        progress = Progress("selfplay", told)
        progress.update("self-play", 1, 12, numbers={"step": 1.0, "tokens": 300.0, "seconds": 2.0, "kl": 0.5})
        targets = [exporter.address.split("/")[2], f"127.0.0.1:{port}"]
        with running(tmp_path, targets) as server:
            nothing = {expression for expression in EXPRESSIONS if not server.query(filled(expression))}
            for annotation in BOARD["annotations"]["list"]:
                server.query(filled(annotation["expr"]))
            for name in ("line", "model"):
                assert server.get(f"label/{name}/values")
            types = server.get("metadata")
    assert nothing == ON_GPUS
    known = types.get("sparring_rounds") or types["sparring_rounds_total"]  # by the format that both agreed on
    assert len(EXPRESSIONS) > 40 and known[0]["type"] == "counter"


def filled(expression: str) -> str:
    """With the variables as Grafana fills in `All`."""
    return expression.replace("$line", ".*").replace("$model", ".*")
