"""The look of the page and its few lines of script; both stand inside the one file."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e22; --grey: #656b74; --paper: #f6f7f9;
  --card: #fff; --rule: #dcdfe4; --mark: #2f6fb5; --bar: #c9dcf1; --fault: #b42f2f;
  --pale: #fbecec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --grey: #9aa1ab; --paper: #15171a;
  --card: #1e2125; --rule: #33373d; --mark: #7db2ec; --bar: #2b4766; --fault: #f08d8d;
  --pale: #33201f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 2000px; margin: 0 auto; padding: 0 20px; }
h1 { font-size: 24px; margin: 22px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 8px; }
h2 .id { color: var(--mark); margin-right: 4px; }
a { color: var(--mark); }
.grey, h2 small, dt { color: var(--grey); font-weight: normal; }
.fault { color: var(--fault); }
.notes { margin: 10px 0; padding: 8px 14px; border-left: 4px solid var(--mark);
  background: var(--card); border-radius: 4px; }
.notes.bad { border-color: var(--fault); background: var(--pale); }
.notes p { margin: 3px 0; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(45%, 250px), 1fr));
  gap: 8px 24px; margin: 14px 0; }
dt { font-size: 12px; } dd { margin: 0; overflow-wrap: anywhere; }
.tools { position: sticky; top: 0; z-index: 2; background: var(--paper);
  border-bottom: 1px solid var(--rule); padding: 10px 0; display: flex; flex-wrap: wrap;
  gap: 8px 14px; align-items: center; }
.tools input, .tools button { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--rule); border-radius: 6px; padding: 5px 11px; }
.tools input { flex: 1 1 220px; max-width: 420px; }
.tools button { cursor: pointer; }
.tools button[aria-pressed=true] { background: var(--mark); border-color: var(--mark);
  color: var(--card); }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
.index { margin: 12px 0; } summary { cursor: pointer; }
.index ol { list-style: none; margin: 8px 0; padding: 0; font-size: 13px; display: grid;
  grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 3px 12px; }
.index a { display: flex; gap: 8px; padding: 1px 6px; border-radius: 4px; color: inherit;
  text-decoration: none;
  background: linear-gradient(var(--bar), var(--bar)) 0 / var(--share) 100% no-repeat; }
.index a:hover { text-decoration: underline; }
.index a span { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.class { content-visibility: auto; contain-intrinsic-size: auto 420px; margin: 22px 0 28px;
  scroll-margin-top: 64px; }
.cards { display: grid; gap: 14px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--film)), 1fr)); }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 12px; min-width: 0; }
h3 { font-size: 14px; margin: 0; overflow-wrap: anywhere; }
article p { margin: 0 0 6px; font-size: 13px; overflow-wrap: anywhere; }
.broken { border-color: var(--fault); grid-column: 1 / -1; }
.broken ul { margin: 4px 0 2px; padding-left: 20px; font-size: 13px; overflow-wrap: anywhere; }
figure { margin: 8px 0 0; }
figcaption { font-size: 12px; color: var(--grey); }
figcaption b { color: var(--ink); font-weight: 600; }
.strip { overflow: hidden; border-radius: 4px; position: relative; background: var(--rule); }
.strip img { display: block; width: 100%; height: auto; }
.strip::before { content: ""; position: absolute; inset: 0; z-index: 1; background:
  linear-gradient(90deg, var(--card) 2px, transparent 2px) -1px 0 /
  calc(100% / var(--count)) 100%; }
.frames { display: grid; grid-auto-columns: minmax(0, 1fr); grid-auto-flow: column; padding: 0;
  list-style: none; margin: 1px 0 0; text-align: center; font-size: 11px; line-height: 1.25; }
.frames small { display: block; color: var(--grey); font-size: 10px; }
.play .cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--moving)), 1fr)); }
.play .views { display: grid; gap: 0 10px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 160px), 1fr)); }
.play figure { min-width: 0; }
.play .strip { aspect-ratio: 1; }
.play .strip img { width: auto; max-width: none; height: 100%; }
.play .strip img { animation: turn var(--turn) steps(var(--count)) infinite; }
.play .strip::before { display: none; }
.play .strip::after { content: ""; position: absolute; left: 0; bottom: 0; height: 3px;
  width: 100%; background: var(--mark); transform-origin: left;
  animation: fill var(--turn) steps(var(--count), jump-start) infinite; }
.play .frames { display: none; }
@keyframes turn { to { transform: translateX(-100%); } }
@keyframes fill { from { transform: scaleX(0); } to { transform: scaleX(1); } }
[hidden] { display: none !important; }
footer { color: var(--grey); font-size: 13px; padding-bottom: 30px; }
@media print { .tools { display: none; } .class { content-visibility: visible; } }
@media (max-width: 640px) { header, main, footer { padding: 0 10px; }
  article { padding: 8px; } .frames small { display: none; } }
"""

SCRIPT = """
const $ = (id) => document.getElementById(id);
const classes = [...document.querySelectorAll('[data-find]')];
function filter() {
  const words = $('find').value.toLowerCase().split(/\\s+/).filter(Boolean);
  const only = $('faults') && $('faults').getAttribute('aria-pressed') === 'true';
  let shown = 0;
  for (const item of classes) {
    const fits = words.every((word) => item.dataset.find.includes(word))
      && (!only || 'faulty' in item.dataset);
    item.hidden = !fits;
    shown += fits && item.tagName === 'SECTION';
  }
  $('found').textContent = shown + (shown === 1 ? ' class' : ' classes');
}
function press(button, on) { button.setAttribute('aria-pressed', String(on)); }
function playing(on) {
  document.body.classList.toggle('play', on);
  press($('play'), on); press($('film'), !on);
}
$('find').addEventListener('input', filter);
$('film').addEventListener('click', () => playing(false));
$('play').addEventListener('click', () => playing(true));
if ($('faults')) $('faults').addEventListener('click', (event) => {
  press(event.target, event.target.getAttribute('aria-pressed') !== 'true'); filter();
});
document.addEventListener('keydown', (event) => {
  if (event.target.tagName === 'INPUT') {
    if (event.key === 'Escape') { $('find').value = ''; filter(); event.target.blur(); }
  } else if (event.key === '/') { event.preventDefault(); $('find').focus(); }
});
if (location.hash === '#moving') playing(true);
document.querySelector('.tools').hidden = false;
filter();
"""
