const $ = (id) => document.getElementById(id);
const film = $('film'), strip = $('strip'), runs = [...document.querySelectorAll('.runs li')];
const seconds = Number(document.body.dataset.seconds);
const offset = Number(document.body.dataset.offset); // of the film, where its sound begins earlier
function jump(to) { film.currentTime = to + offset; mark(to); }
function mark(at) {
  const x = 1000 * Math.min(at / seconds, 1);
  $('now').setAttribute('x1', x); $('now').setAttribute('x2', x);
  for (const run of runs) {
    run.classList.toggle('now', Number(run.dataset.start) <= at && at < Number(run.dataset.end));
  }
}
function filter() {
  const words = $('find').value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const run of runs) {
    run.hidden = !words.every((word) => run.dataset.find.includes(word));
    shown += !run.hidden;
  }
  $('found').textContent = shown + (shown === 1 ? ' run' : ' runs');
}
for (const run of runs) {
  run.firstElementChild.addEventListener('click', () => jump(Number(run.dataset.start)));
}
strip.addEventListener('click', (event) => {
  const box = strip.getBoundingClientRect();
  jump(seconds * (event.clientX - box.left) / box.width);
});
film.addEventListener('timeupdate', () => mark(film.currentTime - offset));
film.addEventListener('error', () => { $('lost').hidden = false; });
document.addEventListener('keydown', (event) => {
  if (event.key === ' ' && !['INPUT', 'BUTTON', 'VIDEO'].includes(event.target.tagName)) {
    event.preventDefault();
    if (film.paused) film.play(); else film.pause();
  }
});
$('find').addEventListener('input', filter);
filter(); mark(0);
