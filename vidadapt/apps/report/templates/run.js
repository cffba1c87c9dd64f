const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const figure = (value) => value === null ? '–' : String(Number(value.toPrecision(5)));

// Curves: the values at the epoch under the pointer, or at that of the arrow keys.
for (const chart of all('[data-chart]')) {
  const { names, rows } = JSON.parse(chart.dataset.chart);
  const svg = chart.querySelector('svg'), said = chart.querySelector('.read');
  const cursor = chart.querySelector('.cursor');
  let place = -1;
  const show = (next) => {
    place = Math.max(0, Math.min(rows.length - 1, next));
    const [epoch, x, values] = rows[place];
    cursor.setAttribute('x1', x); cursor.setAttribute('x2', x);
    cursor.removeAttribute('hidden');
    const parts = values.map((value, line) => `${names[line]} ${figure(value)}`);
    said.textContent = `epoch ${epoch}: ${parts.join(', ')}`;
  };
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const away = rows.map((row) => Math.abs(row[1] - x));
    show(away.indexOf(Math.min(...away)));
  });
  svg.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); show(place + step); }
    if (event.key === 'Home' || event.key === 'End') {
      event.preventDefault(); show(event.key === 'Home' ? 0 : rows.length - 1);
    }
  });
}

// Tables: sort by a column, filter by words.
const valueOf = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text !== '' && !Number.isNaN(Number(text)) ? Number(text) : text.toLowerCase();
};
for (const part of all('.classes')) {
  const body = part.querySelector('tbody'), rows = [...body.rows];
  const heads = all('th', part.querySelector('thead'));
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      for (const other of heads) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const keyed = rows.map((row, number) => [valueOf(row, column), number, row]);
      keyed.sort(([a, i], [b, j]) => {
        const order = typeof a === 'string' ? a.localeCompare(b) : a - b;
        return (down ? -order : order) || i - j;
      });
      body.append(...keyed.map(([, , row]) => row));
    });
  });
  const input = part.querySelector('input'), found = part.querySelector('[data-found]');
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    found.textContent = shown === 1 ? '1 class' : `${shown} classes`;
  };
  input.addEventListener('input', filter);
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') { input.value = ''; filter(); }
  });
  filter();
}

for (const button of all('[data-still]')) {
  const pictures = all('picture', button.closest('section'));
  const moving = pictures.map((picture) => picture.querySelector('img').src);
  button.addEventListener('click', () => {
    const still = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(still));
    pictures.forEach((picture, number) => {
      const image = picture.querySelector('img'), source = picture.querySelector('source');
      image.src = still ? source.srcset : moving[number];
    });
  });
}

// Confusion matrix: drawn on a canvas, which holds 400 x 400 classes easily.
const MOST = 44, LEGIBLE = 13, COUNTED = 26, EDGE = 20;  // pixels of a cell's side; of the margin
const short = (context, text, width) => {
  if (context.measureText(text).width <= width) return text;
  // Names of classes often differ in their last words: the middle goes.
  let kept = text.length, found = text;
  while (kept > 1 && context.measureText(found).width > width) {
    kept -= 1;
    const head = Math.ceil(kept / 2);
    found = `${text.slice(0, head)}…${text.slice(text.length - kept + head)}`;
  }
  return found;
};

function confusion(part) {
  const { names, videos, accuracy, cells } = JSON.parse(part.dataset.matrix);
  const canvas = part.querySelector('canvas'), said = part.querySelector('.read');
  const select = part.querySelector('[data-order]'), count = names.length;
  const totals = names.map(() => 0);
  for (const [label, , number] of cells) totals[label] += number;
  const by = {
    list: (a, b) => a - b,
    name: (a, b) => names[a].localeCompare(names[b]),
    accuracy: (a, b) => (accuracy[a] ?? -1) - (accuracy[b] ?? -1),
    videos: (a, b) => videos[b] - videos[a],
  };
  let order = names.map((_, label) => label), at = [], cell = 0, left = 0, top = 0;
  let marked = null, side = 0, grip = null;
  const counts = new Map(cells.map(([label, other, number]) => [label * count + other, number]));

  const margin = (size) => size >= LEGIBLE ? Math.min(200, side * 0.34) : EDGE;
  const fitting = () => {
    const plain = (side - EDGE) / count;
    return plain < LEGIBLE ? plain : Math.max(Math.min(80, (side - margin(plain)) / count), 1);
  };
  const shown = () => (side - margin(cell)) / cell;  // cells across
  const bound = () => {
    cell = Math.max(fitting(), Math.min(cell, Math.max(MOST, fitting())));
    const most = Math.max(0, count - shown());
    left = Math.max(0, Math.min(left, most)); top = Math.max(0, Math.min(top, most));
  };
  const reorder = () => {
    order = names.map((_, label) => label).sort((a, b) => by[select.value](a, b) || a - b);
    at = []; order.forEach((label, place) => { at[label] = place; });
  };

  function draw() {
    bound();
    const style = getComputedStyle(document.documentElement), ratio = window.devicePixelRatio || 1;
    const colour = (name) => style.getPropertyValue(name).trim();
    const edge = margin(cell), extent = Math.min(side, edge + count * cell);
    canvas.width = side * ratio; canvas.height = extent * ratio;
    canvas.style.height = `${extent}px`;
    const context = canvas.getContext('2d');
    context.scale(ratio, ratio);
    context.font = '12px system-ui, "DejaVu Sans", sans-serif';
    context.save();
    context.beginPath(); context.rect(edge, edge, side - edge, side - edge); context.clip();
    context.strokeStyle = colour('--rule');
    context.strokeRect(edge + 0.5, edge + 0.5, count * cell - 1, count * cell - 1);
    for (const [label, other, number] of cells) {
      const x = edge + (at[other] - left) * cell, y = edge + (at[label] - top) * cell;
      if (x + cell < edge || y + cell < edge || x > side || y > side) continue;
      const least = cell < 4 ? 0.5 : 0.2;  // a paler point would not be seen
      context.globalAlpha = least + (1 - least) * (number / totals[label]) ** 0.6;
      context.fillStyle = colour(label === other ? '--c0' : '--fault');
      const gap = cell > 6 ? 1 : 0;
      context.fillRect(x, y, Math.max(cell - gap, 1.8), Math.max(cell - gap, 1.8));
      if (cell >= COUNTED) {
        context.globalAlpha = 1;
        context.fillStyle = number / totals[label] > 0.5 ? colour('--card') : colour('--ink');
        context.textAlign = 'center'; context.textBaseline = 'middle';
        context.fillText(number, x + cell / 2, y + cell / 2);
      }
    }
    context.globalAlpha = 1;
    if (marked) {
      context.strokeStyle = colour('--ink'); context.lineWidth = 2;
      const x = edge + (marked[1] - left) * cell, y = edge + (marked[0] - top) * cell;
      context.strokeRect(x, y, Math.max(cell, 3), Math.max(cell, 3));
    }
    context.restore();
    titles(context, edge, colour);
  }

  function titles(context, edge, colour) {
    context.fillStyle = colour('--grey');
    context.textBaseline = 'middle';
    if (cell < LEGIBLE) {
      context.textAlign = 'left';
      context.fillText('predicted →', edge, edge / 2);
      context.save(); context.translate(edge / 2, edge); context.rotate(Math.PI / 2);
      context.fillText('label →', 0, 0); context.restore();
      return;
    }
    const last = Math.min(count, Math.ceil(shown()) + 1);
    for (let step = 0; step <= last; step += 1) {
      const row = Math.floor(top) + step, column = Math.floor(left) + step;
      const y = edge + (row - top + 0.5) * cell, x = edge + (column - left + 0.5) * cell;
      if (row < count && y > edge && y < side) {
        context.textAlign = 'right';
        context.fillText(short(context, names[order[row]], edge - 8), edge - 6, y);
      }
      if (column < count && x > edge && x < side) {
        context.save(); context.translate(x, edge - 6); context.rotate(-Math.PI / 2);
        context.textAlign = 'left';
        context.fillText(short(context, names[order[column]], edge - 8), 0, 0);
        context.restore();
      }
    }
  }

  function mark(row, column) {
    if (row < 0 || column < 0 || row >= count || column >= count) return;
    marked = [row, column];
    const label = order[row], other = order[column];
    const number = counts.get(label * count + other) ?? 0, total = totals[label];
    const share = total ? ` (${(100 * number / total).toFixed(1)} %)` : '';
    said.textContent = `${names[label]} → ${names[other]}: ${number} of ${total}${share}`;
    draw();
  }
  function zoom(factor, x = side / 2, y = side / 2) {
    const before = cell, edge = margin(cell);
    const column = left + Math.max(0, x - edge) / cell, row = top + Math.max(0, y - edge) / cell;
    cell *= factor; bound();
    if (cell === before) return;
    const now = margin(cell);
    left = column - Math.max(0, x - now) / cell; top = row - Math.max(0, y - now) / cell;
    draw();
  }
  const whole = () => { cell = 0; left = top = 0; draw(); };
  const cellAt = (event) => {
    const box = canvas.getBoundingClientRect(), edge = margin(cell);
    const x = event.clientX - box.left, y = event.clientY - box.top;
    if (x < edge || y < edge) return [-1, -1];
    return [Math.floor(top + (y - edge) / cell), Math.floor(left + (x - edge) / cell)];
  };

  canvas.addEventListener('pointermove', (event) => {
    if (grip) {
      left = grip.left - (event.clientX - grip.x) / cell;
      top = grip.top - (event.clientY - grip.y) / cell;
      draw();
    } else mark(...cellAt(event));
  });
  canvas.addEventListener('pointerdown', (event) => {
    mark(...cellAt(event));
    grip = { x: event.clientX, y: event.clientY, left, top };
    canvas.setPointerCapture(event.pointerId);
  });
  for (const end of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(end, () => { grip = null; });
  }
  // The wheel alone scrolls the page.
  canvas.addEventListener('wheel', (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  canvas.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === '+' || event.key === '=') zoom(1.5);
    else if (event.key === '-') zoom(1 / 1.5);
    else if (event.key === '0') whole();
    else if (move[event.key]) {
      const [row, column] = marked ?? [-1, -1], [down, right] = move[event.key];
      const to = (place) => Math.max(0, Math.min(count - 1, place));
      const next = marked ? [to(row + down), to(column + right)] : [0, 0];
      const across = Math.max(1, Math.floor(shown()));
      top = Math.min(Math.max(top, next[0] - across + 1), next[0]);
      left = Math.min(Math.max(left, next[1] - across + 1), next[1]);
      mark(...next);
    } else return;
    event.preventDefault();
  });
  select.addEventListener('change', () => { marked = null; reorder(); draw(); });
  for (const button of all('[data-zoom]', part)) {
    const what = button.dataset.zoom;
    button.addEventListener('click', () => what === 'whole' ? whole() : zoom(what === 'in' ? 1.5 : 1 / 1.5));
  }
  const resized = () => {
    const room = Math.min(640, canvas.parentElement.clientWidth - 28);
    if (room > 0 && room !== side) { side = room; canvas.style.maxWidth = `${side}px`; whole(); }
  };
  reorder(); resized();
  new ResizeObserver(resized).observe(part);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
}
all('[data-matrix]').forEach(confusion);
for (const tools of all('.tools')) tools.hidden = false;
