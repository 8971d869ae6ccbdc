"""How the page of an advice looks, beside what it has in common with pages of results."""

ADVICE_STYLE = """
main { display: grid; gap: 18px; }
section { min-width: 0; padding: 18px 20px 20px; border: 1px solid var(--line); border-radius: 12px;
  background: var(--card); box-shadow: var(--shadow); }
.top { display: grid; grid-template-columns: minmax(0, 1fr) minmax(240px, 340px); gap: 28px; }
.road-taken { margin: 0 0 14px; font-size: clamp(18px, 2.2vw, 23px); font-weight: 650; line-height: 1.25;
  overflow-wrap: anywhere; }
.road-taken small { display: block; color: var(--soft); font-size: 13px; font-weight: 500; margin-bottom: 4px; }
.said { margin: 0; padding-left: 18px; max-width: 78ch; overflow-wrap: anywhere; }
.said li { margin: 0 0 8px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 18px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 8px; color: var(--soft); font-size: 12px; }
.legend i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 50%; }
svg { display: block; width: 100%; height: auto; max-width: 540px; }
svg text { fill: var(--soft); font-size: 12px; text-anchor: middle; }
svg text.start { text-anchor: start; } svg text.end { text-anchor: end; }
svg text.road { font-size: 13px; } svg text.taken { fill: var(--ink); font-weight: 650; }
.well { fill: var(--well); } .between, .aside { fill: var(--line); opacity: .55; }
.cross, .grid { stroke: var(--line); fill: none; } .cross { stroke: var(--soft); opacity: .5; }
.level { stroke: var(--soft); stroke-dasharray: 4 4; }
.unknown { stroke: var(--bar); stroke-dasharray: 6 5; stroke-width: 2; }
.reach { stroke: var(--bar); stroke-width: 3; opacity: .6; }
.here { fill: var(--bar); stroke: var(--card); stroke-width: 2; }
.line { fill: none; stroke-width: 1.8; } svg .bar { display: inline; stroke-width: 1.4; opacity: .55; }
svg .c0 { stroke: var(--bar); } svg .dot.c0 { fill: var(--bar); } .legend .c0 { background: var(--bar); }
svg .c1 { stroke: var(--same-line); } svg .dot.c1 { fill: var(--same-line); }
.legend .c1 { background: var(--same-line); }
svg .dot { stroke: none; } svg .marked { stroke: var(--ink); stroke-width: 2; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; white-space: normal;
  overflow-wrap: anywhere; } tr.taken td { font-weight: 650; background: var(--same-well); }
.commands { display: grid; gap: 12px; margin: 0; }
.commands div { max-width: none; }
.commands dt::first-letter { text-transform: uppercase; }
.commands dd { margin-top: 3px; }
pre { margin: 0; padding: 9px 12px; border-radius: 8px; background: var(--well);
  font: 12.5px/1.5 ui-monospace, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: 13px; margin: 10px 0 0; overflow-wrap: anywhere; }
@media (max-width: 760px) { .top { grid-template-columns: minmax(0, 1fr); }
  .top svg { max-width: 300px; margin: 0 auto; }
  section { padding: 14px 14px 16px; } th, td { padding: 5px 4px; } .wide { display: none; } }
"""
