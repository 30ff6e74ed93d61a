'use strict';
{
  const data = JSON.parse(document.getElementById('data').textContent);
  const table = document.getElementById('class-table');
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);

  // ------------------------------------------------------------------ light and dark
  const root = document.documentElement;
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  const follow = () => { root.dataset.theme = dark.matches ? 'dark' : 'light'; };
  follow();
  dark.addEventListener('change', follow);
  document.getElementById('theme').addEventListener('click', () => {
    root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
  });

  // ------------------------------------------------------------------ sorting and searching
  const closeAll = () => {
    for (const row of rows) close(row);
  };
  const value = (row, column) => row.cells[column].dataset.value;
  const compare = (a, b) => {  // what has no value comes last in either direction
    if (a === '' || b === '') return null;
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) ? a.localeCompare(b) : numbers[0] - numbers[1];
  };
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.addEventListener('click', () => {
      const first = column === 0 ? 'ascending' : 'descending';
      const other = first === 'ascending' ? 'descending' : 'ascending';
      const order = head.getAttribute('aria-sort') === first ? other : first;
      for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', order);
      const sign = order === 'ascending' ? 1 : -1;
      closeAll();
      rows.sort((a, b) => {
        const [left, right] = [value(a, column), value(b, column)];
        const difference = compare(left, right);
        return difference === null ? (left === '') - (right === '') : sign * difference;
      });
      body.append(...rows);
    });
  });

  const search = document.getElementById('search');
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    closeAll();
    for (const row of rows) {
      const text = `${value(row, 0)} ${row.dataset.mid}`.toLowerCase();
      row.hidden = !text.includes(wanted);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById('shown').textContent = `${shown} classes`;
  };
  search.addEventListener('input', filter);

  // ------------------------------------------------------------------ a class in detail
  const svg = (tag, attributes, text) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, set] of Object.entries(attributes)) node.setAttribute(name, set);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const html = (tag, text) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  function curve(points) {
    const [width, height, left, top] = [280, 180, 34, 24];
    const x = (recall) => left + recall * width;
    const y = (precision) => top + (1 - precision) * height;
    const drawing = svg('svg', {
      viewBox: `0 0 ${left + width + 12} ${top + height + 34}`, class: 'curve', role: 'img',
      'aria-label': 'precision over recall',
    });
    drawing.append(svg('path', { class: 'frame', d: `M${x(0)} ${y(1)}V${y(0)}H${x(1)}` }));
    for (const tick of [0, 0.5, 1]) {
      drawing.append(
        svg('text', { x: x(tick), y: y(0) + 14, 'text-anchor': 'middle' }, String(tick)),
        svg('text', { x: left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, String(tick)));
    }
    drawing.append(
      svg('text', { x: x(0.5), y: y(0) + 30, 'text-anchor': 'middle' }, 'recall'),
      svg('text', { x: left - 28, y: y(1) - 12 }, 'precision'));
    if (points.length) {
      let steps = `M${x(0)} ${y(points[0][1])}`;
      for (const [recall, precision] of points) steps += `V${y(precision)}H${x(recall)}`;
      drawing.append(svg('path', { class: 'steps', d: steps }));
    }
    for (const [recall, precision, score] of points) {
      const dot = svg('circle', { cx: x(recall), cy: y(precision), r: 2.5 });
      dot.append(svg('title', {}, `recall ${recall.toFixed(3)}, precision `
        + `${precision.toFixed(3)}, score ${score.toFixed(3)}`));
      drawing.append(dot);
    }
    return drawing;
  }

  const digits = (number) => (number === null ? '–' : number.toFixed(4));

  function costs(details) {
    const list = html('table');
    const { low, high } = details.AP_interval;
    list.createCaption().textContent = `95% interval of the AP: ${digits(low)} to ${digits(high)}.`
      + ' AP gained without';
    for (const [name, gain] of Object.entries(details.errors)) {
      const row = list.insertRow();
      row.insertCell().textContent = name;
      const cell = row.insertCell();
      cell.className = 'number';
      cell.textContent = digits(gain);
    }
    return list;
  }

  function close(row) {
    const next = row.nextElementSibling;
    if (next !== null && next.classList.contains('detail')) {
      next.remove();
      row.querySelector('.open').setAttribute('aria-expanded', 'false');
    }
  }

  function open(row) {
    const details = data[row.dataset.class];
    if (details === undefined) return;
    const line = html('tr');
    line.className = 'detail';
    const cell = line.insertCell();
    cell.colSpan = row.cells.length;
    const inside = html('div');
    inside.className = 'detail-body';
    inside.append(curve(details.curve), costs(details));
    cell.append(inside);
    row.after(line);
    row.querySelector('.open').setAttribute('aria-expanded', 'true');
  }

  body.addEventListener('click', (event) => {
    const row = event.target.closest('tr[data-class]');
    if (row === null) return;
    if (row.querySelector('.open').getAttribute('aria-expanded') === 'true') close(row);
    else open(row);
  });

  // ------------------------------------------------------------------ the tree
  const branches = document.querySelectorAll('.tree details');
  document.getElementById('open-all').addEventListener('click', () => {
    for (const branch of branches) branch.open = true;
  });
  document.getElementById('close-all').addEventListener('click', () => {
    for (const branch of branches) branch.open = false;
  });
  const show = () => {  // a link to a class opens it
    const row = rows.find((one) => `#${one.id}` === window.location.hash);
    if (row === undefined) return;
    search.value = '';
    filter();
    open(row);
    row.scrollIntoView({ block: 'center' });
  };
  window.addEventListener('hashchange', show);
  show();
}
