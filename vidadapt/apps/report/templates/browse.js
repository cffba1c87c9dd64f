const $ = (id) => document.getElementById(id);
const classes = [...document.querySelectorAll('[data-find]')];
function filter() {
  const words = $('find').value.toLowerCase().split(/\s+/).filter(Boolean);
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
