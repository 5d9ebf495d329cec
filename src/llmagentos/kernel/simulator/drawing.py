"""Draws replays as SVG: who had which slot when (Gantt), and what each tenant was served (fairness)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from llmagentos.kernel.simulator.replay import CallRecord, Replay

MAX_BARS = 5_000
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 80, 50, 46, 40
_PLOT = _WIDTH - _LEFT - _RIGHT
_ROW, _CURVES = 14, 220
_POINTS = 300
# Distinguishable with the common kinds of colour blindness (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.t{font-weight:600}.a{fill:#666}.g{stroke:#ddd}"
    "@media(prefers-color-scheme:dark){svg{background:#16181d}text{fill:#ddd}.a{fill:#999}.g{stroke:#333}}"
)


def gantt(replays: Sequence[Replay], *, time_label: str, slot_label: str) -> str:
    """One panel a policy: a row a slot, a bar a call, coloured by the run's kind. The first `MAX_BARS` calls each."""
    kinds = sorted({call.run.kind for found in replays for call in found.calls})
    shown = [found.calls[:MAX_BARS] for found in replays]
    end = max((call.ended for calls in shown for call in calls), default=0.0) or 1.0
    panels, top = [], 0
    for found, calls in zip(replays, shown, strict=True):
        height = found.slots * _ROW
        bars = (_bar(call, end, kinds) for call in calls)
        slots = (_text(8, _TOP + slot * _ROW + 11, f"{slot_label} {slot + 1}", "a") for slot in range(found.slots))
        panels.append(_panel(top, height, end, found.policy, [*slots, *bars], kinds, time_label))
        top += height + _TOP + _BOTTOM
    return _svg(top, panels)


def fairness(replays: Sequence[Replay], *, time_label: str, service_label: str) -> str:
    """One panel a policy: a curve a tenant, the weighted tokens that it had been served; the largest eight tenants."""
    totals: dict[str, float] = {}
    for found in replays:
        for tenant, served in (found.service[-1][1] if found.service else {}).items():
            totals[tenant] = max(totals.get(tenant, 0.0), served)
    tenants = sorted(sorted(totals, key=lambda name: -totals[name])[: len(_COLOURS)])
    highest = max(totals.values(), default=0.0) or 1.0
    end = max((at for found in replays for at, _ in found.service), default=0.0) or 1.0
    panels, top = [], 0
    for found in replays:
        scale = _text(8, _TOP + 11, f"{highest:,.0f}", "a") + _text(8, _TOP + 27, service_label, "a")
        curves = (_curve(found, tenant, tenants, end, highest) for tenant in tenants)
        panels.append(_panel(top, _CURVES, end, found.policy, [scale, *curves], tenants, time_label))
        top += _CURVES + _TOP + _BOTTOM
    return _svg(top, panels)


def _svg(height: int, panels: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
    )
    return f"{head}<style>{_STYLE}</style>{''.join(panels)}</svg>\n"


def _panel(
    top: int, height: int, end: float, title: str, drawn: Iterable[str], names: Sequence[str], time_label: str
) -> str:
    ticks = []
    for tick in range(6):
        x = _LEFT + _PLOT * tick / 5
        ticks.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + height}"/>')
        label = f"{end * tick / 5:.3g}" + (f" {time_label}" if tick == 0 else "")
        ticks.append(_text(x, _TOP + height + 16, label, "a"))
    legend = []
    for place, name in enumerate(names[: len(_COLOURS)]):
        x = _LEFT + 110 * place
        legend.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{_colour(name, names)}"/>')
        legend.append(_text(x + 14, 37, name, "a"))
    parts = [_text(_LEFT, 18, title, "t"), *legend, *ticks, *drawn]
    return f'<g transform="translate(0 {top})">{"".join(parts)}</g>'


def _bar(call: CallRecord, end: float, kinds: Sequence[str]) -> str:
    x, width = _LEFT + _PLOT * call.begun / end, max(0.3, _PLOT * (call.ended - call.begun) / end)
    y = _TOP + call.slot * _ROW + 1
    title = escape(f"{call.run.id}: {call.begun:.2f} - {call.ended:.2f}")
    return (
        f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_ROW - 2}" fill="{_colour(call.run.kind, kinds)}">'
        f"<title>{title}</title></rect>"
    )


def _curve(found: Replay, tenant: str, tenants: Sequence[str], end: float, highest: float) -> str:
    step = max(1, len(found.service) // _POINTS)
    points = " ".join(
        f"{_LEFT + _PLOT * at / end:.1f},{_TOP + _CURVES * (1 - served.get(tenant, 0.0) / highest):.1f}"
        for at, served in [*found.service[::step], *found.service[-1:]]
    )
    return f'<polyline points="{points}" fill="none" stroke-width="2" stroke="{_colour(tenant, tenants)}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _colour(name: str, names: Sequence[str]) -> str:
    return _COLOURS[names.index(name) % len(_COLOURS)]
