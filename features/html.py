"""Declarations as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from features.plan import DerivedPlan, ServicePlan, ViewPlan


def view_html(plan: ViewPlan) -> str:
    """A view: its entities and sources, then each feature with its type and what was declared."""
    sources = ", ".join(source.event.name for source in plan.sources)
    where = f" where {plan.where}" if plan.where else ""
    heading = f"{plan.name}: {plan.kind}, of {', '.join(plan.entities)}, from {sources}{where}"
    rows = [(feature.name, feature.type, feature.declared) for feature in plan.features]
    return _table(heading, plan.description, ("feature", "type", "declared"), rows)


def derived_html(plan: DerivedPlan) -> str:
    """A derived view: its inputs, then each feature with its type and its expression."""
    inputs = [*plan.inputs, *(f"{column.name} (request, {column.type})" for column in plan.request)]
    rows = [(feature.name, feature.type, feature.sql) for feature in plan.features]
    return _table(f"{plan.name}: from {', '.join(inputs)}", plan.description, ("feature", "type", "expression"), rows)


def service_html(plan: ServicePlan) -> str:
    """A service: the features that it reads of each view."""
    rows = [(selection.view, ", ".join(selection.features)) for selection in plan.selections]
    heading = f"{plan.name}: log {plan.log:g}, clock {plan.clock}"
    return _table(heading, plan.description, ("view", "features"), rows)


def _table(heading: str, description: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    text = f"<p>{escape(description)}</p>" if description else ""
    return f"<h4>{escape(heading)}</h4>{text}<table><tr>{head}</tr>{body}</table>"
