// The catalogue: models or datasets as a table that sorts by any column and narrows as one types. All text goes in through textContent.
const COLUMNS = {
  model: [
    ['name', 'Model', 'text'], ['organisation', 'Organisation', 'text'], ['year', 'Year', 'plain'], ['parameters', 'Parameters', 'count'],
    ['context', 'Context', 'number'], ['licence', 'Licence', 'text'], ['architecture', 'Architecture', 'text'], ['opens', 'Opens here', 'yes'],
  ],
  dataset: [
    ['name', 'Dataset', 'text'], ['organisation', 'Organisation', 'text'], ['year', 'Year', 'plain'], ['size', 'Size', 'text'],
    ['licence', 'Licence', 'text'], ['opens', 'Fetched here', 'yes'],
  ],
};
const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const root = element.querySelector('.md-catalogue');
let rows = [], dated = '', kind = 'model', order = 'parameters', up = true, words = '', only = false, licence = '', family = '';

const SHOW = {
  text: (v) => v ?? '', plain: (v) => String(v ?? ''), yes: (v) => (v ? 'yes' : 'no'), number: (v) => (v ? v.toLocaleString('en') : ''),
  count: (v) => (!v ? '' : v >= 1e12 ? (v / 1e12).toPrecision(3) + ' T' : v >= 1e9 ? (v / 1e9).toPrecision(3) + ' B' : (v / 1e6).toPrecision(3) + ' M'),
};
const blank = (v) => v === null || v === undefined || v === '';

function chosen() { // the rows that pass the filters, in order; what is unknown stands last either way
  const parts = words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter((row) => row.kind === kind && (!only || row.opens) && (!licence || row.licence === licence) && (!family || row.architecture === family)
    && parts.every((part) => [row.name, row.organisation, row.architecture, row.licence, row.about, row.year].join(' ').toLowerCase().includes(part)));
  return found.sort((a, b) => {
    const [x, y] = [a[order], b[order]];
    if (blank(x) || blank(y)) return blank(x) - blank(y);
    const by = typeof x === 'string' ? x.localeCompare(y, 'en', { numeric: true }) : x - y;
    return (up ? by : -by) || a.name.localeCompare(b.name, 'en', { numeric: true });
  });
}
function line(row) {
  const cells = COLUMNS[kind].map(([key, , form]) => {
    const cell = make('td', { class: ['count', 'number'].includes(form) ? 'num' : ['year', 'architecture', 'opens'].includes(key) ? 'md-line' : null }, SHOW[form](row[key]));
    if (key === 'parameters' && row.parameters) cell.title = row.parameters.toLocaleString('en');
    if (key === 'name') cell.append(make('span', { class: 'md-under' }, row.about));
    return cell;
  });
  const tools = make('td', { class: 'md-tools' });
  const act = (action, name, text) => tools.append(make('button', { type: 'button', class: 'lab-link', 'data-action': action, 'data-name': name, 'aria-label': `${text}: ${row.name}` }, text));
  if (row.drawn) act('draw', row.name, 'anatomy');
  if (row.repo) act('bring', row.repo, 'bring');
  if (/^https?:\/\//.test(row.source)) tools.append(make('a', { href: row.source, target: '_blank', rel: 'noopener noreferrer', 'aria-label': `source: ${row.name}` }, 'source'));
  return make('tr', { 'data-name': row.name }, ...cells, tools);
}
function draw() {
  const found = chosen();
  const head = COLUMNS[kind].map(([key, title, form]) => {
    const arrow = key === order ? (up ? ' ↑' : ' ↓') : '';
    const press = make('button', { type: 'button', class: 'md-sort', 'data-sort': key }, title, arrow);
    return make('th', { class: ['count', 'number'].includes(form) ? 'num' : null, 'aria-sort': key === order ? (up ? 'ascending' : 'descending') : null }, press);
  });
  const focused = root.querySelector('.md-sort:focus')?.dataset.sort;
  root.querySelector('.md-table').replaceChildren(make('table', { class: 'lab-table' }, make('thead', {}, make('tr', {}, ...head, make('th'))), make('tbody', {}, ...found.map(line))));
  if (focused) root.querySelector(`.md-sort[data-sort="${focused}"]`)?.focus();
  const all = rows.filter((row) => row.kind === kind).length;
  root.querySelector('.md-told').textContent = `${found.length} of ${all} ${kind === 'model' ? 'models' : 'datasets'}; facts as of ${dated}. What is not known stays blank.`;
}
function options(select, key, title) {
  const values = [...new Set(rows.filter((row) => row.kind === kind).map((row) => row[key]).filter(Boolean))].sort();
  select.replaceChildren(make('option', { value: '' }, title), ...values.map((value) => make('option', { value, translate: 'no' }, value)));
  select.hidden = !values.length;
}
function build() {
  const find = make('input', { type: 'search', class: 'md-find', placeholder: 'name, organisation, licence ...', 'aria-label': 'narrow the catalogue' });
  const kinds = ['model', 'dataset'].map((k) => make('button', { type: 'button', class: 'lab-chip', 'data-kind': k, 'aria-pressed': String(k === kind) }, k === 'model' ? 'Models' : 'Datasets'));
  const families = make('select', { 'aria-label': 'architecture' }), licences = make('select', { 'aria-label': 'licence' });
  const box = make('input', { type: 'checkbox' });
  root.replaceChildren(make('div', { class: 'md-bar' }, make('div', { class: 'lab-chips', role: 'group', 'aria-label': 'what is listed' }, ...kinds), find, families, licences, make('label', { class: 'md-only' }, box, 'opens here')),
    make('div', { class: 'lab-scroll md-table', tabindex: 0 }), make('p', { class: 'lab-note md-told', 'aria-live': 'polite' }));
  const filters = () => { licence = family = ''; options(families, 'architecture', 'any architecture'); options(licences, 'licence', 'any licence'); };
  find.addEventListener('input', () => { words = find.value; draw(); });
  box.addEventListener('change', () => { only = box.checked; draw(); });
  families.addEventListener('change', () => { family = families.value; draw(); });
  licences.addEventListener('change', () => { licence = licences.value; draw(); });
  root.addEventListener('click', (event) => {
    const press = event.target.closest('button');
    if (!press) return;
    if (press.dataset.kind) {
      kind = press.dataset.kind; order = kind === 'model' ? 'parameters' : 'name'; up = true;
      for (const other of kinds) other.setAttribute('aria-pressed', String(other === press));
      filters(); draw();
    } else if (press.dataset.sort) {
      if (order === press.dataset.sort) up = !up; else { order = press.dataset.sort; up = true; }
      draw();
    } else if (press.dataset.action) trigger('click', { action: press.dataset.action, name: press.dataset.name });
  });
  filters(); draw();
}
server.lab_catalogue({}).then((answer) => { rows = answer.rows; dated = answer.dated; build(); });
