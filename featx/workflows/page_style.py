"""How a page of pictures looks: one style sheet for light and dark screens, phones, wide windows and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f8; --card: #ffffff; --well: #eceef2; --line: #e0e3e9; --ink: #14171c; --soft: #59616d;
  --bar: #5b7fd1; --same: #11734a; --same-line: #43a77b; --same-well: #e5f4ec;
  --warn: #8a4b00; --warn-well: #fdf0dc; --bad: #a3222b; --bad-well: #fbe9ea;
  --shadow: 0 1px 2px rgb(20 23 28 / 5%), 0 2px 8px rgb(20 23 28 / 4%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1115; --card: #181b21; --well: #23272f; --line: #2b303a; --ink: #eceef2; --soft: #a0a8b5;
    --bar: #7f9fe6; --same: #78d3a8; --same-line: #3f8f6b; --same-well: #173327;
    --warn: #f0bd74; --warn-well: #372a16; --bad: #f39aa0; --bad-well: #3b1d20;
    --shadow: none;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums;
}
header, main, footer { max-width: 1680px; margin: 0 auto; padding: 0 clamp(14px, 3vw, 40px); }
header { padding-top: clamp(24px, 4vw, 48px); padding-bottom: 20px; }
h1 { margin: 0 0 14px; font-size: clamp(22px, 3vw, 30px); line-height: 1.2; font-weight: 650; letter-spacing: -.015em;
  overflow-wrap: anywhere; text-wrap: balance; }
dl { display: flex; flex-wrap: wrap; gap: 10px 32px; margin: 0; }
dl div { min-width: 0; max-width: 100%; }
dt { color: var(--soft); font-size: 12px; }
dt::first-letter { text-transform: uppercase; }
dd { margin: 0; font-weight: 500; overflow-wrap: anywhere; }
.row {
  display: grid; grid-template-columns: 216px minmax(0, 1fr); gap: 32px;
  margin: 0 -2px; padding: 26px 2px 30px; border-top: 1px solid var(--line);
  content-visibility: auto; contain-intrinsic-size: auto 620px;
}
.about { min-width: 0; }
h2 { margin: 0 0 10px; font-size: 15px; font-weight: 650; overflow-wrap: anywhere; }
.tally { margin: 10px 0 0; color: var(--soft); font-size: 13px; }
.notes { display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 10px; padding: 0; list-style: none; }
.notes li { padding: 2px 9px; border-radius: 10px; background: var(--warn-well); color: var(--warn); font-size: 12px;
  font-weight: 550; overflow-wrap: anywhere; }
.failure { margin: 0; padding: 12px 14px; border-radius: 10px; background: var(--bad-well); color: var(--bad);
  overflow-wrap: anywhere; align-self: start; }
.nothing { padding: 40px 0; border-top: 1px solid var(--line); color: var(--soft); }
.cards { display: grid; gap: 16px; margin: 0; padding: 0; list-style: none; align-content: start; }
.hits { grid-template-columns: repeat(auto-fill, minmax(172px, 1fr)); }
.queries.many { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
.card {
  display: flex; flex-direction: column; min-width: 0; overflow: hidden;
  border: 1px solid var(--line); border-radius: 12px; background: var(--card); box-shadow: var(--shadow);
}
.queries .card { border: 0; background: none; box-shadow: none; border-radius: 0; overflow: visible; }
.queries .frame { border-radius: 12px; }
.card.same { border-color: var(--same-line); box-shadow: 0 0 0 1px var(--same-line); }
.card.against .frame { outline: 2px dashed var(--bad); outline-offset: -2px; }
.card.against img { opacity: .6; }
.frame { position: relative; display: grid; place-items: center; aspect-ratio: 1; overflow: hidden;
  background: var(--well); }
.frame img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.empty { padding: 12px; color: var(--soft); font-size: 12px; text-align: center; }
.facts { display: flex; flex-direction: column; gap: 6px; min-width: 0; padding: 10px 12px 12px; }
.queries .facts { padding: 8px 2px 0; }
.measure { display: flex; align-items: baseline; gap: 8px; }
.score { font-size: 16px; font-weight: 650; letter-spacing: -.01em; }
.rank { margin-left: auto; color: var(--soft); font-size: 12px; }
.bar { display: block; height: 3px; border-radius: 2px; background: var(--well); overflow: hidden; }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--bar); }
.label { font-size: 13px; font-weight: 550; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.mark { padding: 0 6px; border-radius: 5px; background: var(--same-well); color: var(--same); font-size: 11px;
  font-weight: 650; white-space: nowrap; }
.note { color: var(--soft); font-size: 12px; overflow-wrap: anywhere; }
.against .note { color: var(--bad); font-weight: 550; }
.path { display: flex; min-width: 0; color: var(--soft); font-size: 12px; white-space: pre; unicode-bidi: isolate; }
.path .start { flex: 0 1 auto; min-width: 0; overflow: hidden; text-overflow: ellipsis; }
.path .end { flex: 0 0 auto; max-width: 86%; overflow: hidden; text-overflow: ellipsis; }
footer { padding-top: 18px; padding-bottom: 40px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 12px; }
main + footer { margin-top: 8px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 720px) {
  .row { grid-template-columns: minmax(0, 1fr); gap: 18px; }
  .hits { grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); gap: 12px; }
  .queries:not(.many) .card { flex-direction: row; align-items: center; gap: 14px; }
  .queries:not(.many) .frame { flex: 0 0 112px; }
  .queries:not(.many) .facts { flex: 1; padding: 0; }
  .queries.many { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); }
}
@media print {
  .row { content-visibility: visible; break-inside: avoid; }
  .card { box-shadow: none; break-inside: avoid; }
}
"""
