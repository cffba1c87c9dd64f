const $ = (id) => document.getElementById(id);
const film = $('film'), items = [...document.querySelectorAll('.frames li')];
const frames = items.map((item) => ({
  image: item.querySelector('img'), canvas: item.querySelector('canvas'),
  cells: JSON.parse(item.dataset.cells),
}));
let at = 0;
function evidence(context, cells, side) {
  const step = side / cells.length;
  cells.forEach((row, y) => row.forEach((value, x) => {
    const colour = value > 0 ? '34, 136, 51' : '204, 51, 17';
    context.fillStyle = `rgba(${colour}, ${0.75 * Math.sqrt(Math.abs(value))})`;
    context.fillRect(x * step, y * step, step, step);
  }));
}
function draw() {
  const context = film.getContext('2d'), frame = frames[at];
  context.drawImage(frame.image, 0, 0, film.width, film.height);
  if ($('over').checked) evidence(context, frame.cells, film.width);
}
function over() {
  for (const { canvas, cells } of frames) {
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, canvas.width, canvas.height);
    if ($('over').checked) evidence(context, cells, canvas.width);
  }
  draw();
}
$('over').addEventListener('change', over);
$('play').addEventListener('click', () => {
  $('play').setAttribute('aria-pressed', String($('play').getAttribute('aria-pressed') !== 'true'));
});
Promise.all(frames.map(({ image }) => image.decode())).then(over);
setInterval(() => {
  if ($('play').getAttribute('aria-pressed') === 'true') { at = (at + 1) % frames.length; draw(); }
}, 300);
