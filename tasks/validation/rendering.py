"""A suite's results as one self-contained HTML page (Great Expectations' own pages need a network)."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2330}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #d8dde6}
td.n{text-align:right;font-variant-numeric:tabular-nums}.pass{color:#17693b}.fail{color:#a3211c}.warning{color:#8a5a00}
"""


def render_results(results: Mapping[str, Any]) -> str:
    """The page of one validation; ``results`` is the JSON document that the stage stores."""
    lines = "\n".join(_line(outcome) for outcome in results["expectations"])
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Validation</title>"
        f"<style>{_STYLE}</style></head><body><h1>Validation of {escape(str(results['kind']))}</h1>"
        f"<p>{results['num_rows']} rows, {results['num_failed_rows']} of them fail; "
        f"{results['num_failed_expectations']} of {len(results['expectations'])} expectations fail.</p>"
        "<table><thead><tr><th>expectation</th><th>rule</th><th>limits</th><th>verdict</th><th>rows failing</th>"
        f"<th>observed</th></tr></thead><tbody>{lines}</tbody></table></body></html>"
    )


def _line(outcome: Mapping[str, Any]) -> str:
    verdict = "pass" if outcome["success"] else ("warning" if outcome["severity"] == "warning" else "fail")
    limits = {name: value for name, value in outcome["arguments"].items() if isinstance(value, str | int | float)}
    described = ", ".join(f"{name} {value}" for name, value in limits.items())
    observed = "" if outcome["observed"] is None else f"{outcome['observed']:g}"
    return (
        f"<tr><td>{escape(outcome['reason'])}</td><td>{escape(outcome['expectation'])}</td><td>{escape(described)}</td>"
        f"<td class='{verdict}'>{verdict}</td><td class='n'>{outcome['num_failed']}</td><td class='n'>{observed}</td></tr>"
    )
