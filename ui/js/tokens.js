// The token view: tinted tokens, their ids, what one of them is, a paged table. All text goes in through textContent.
const SHOWN_ROWS = 20, TINTS = 5;
const node = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const at = (name) => element.querySelector('.tk-' + name);
const grouped = (n) => n.toLocaleString('en');
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const BLANKS = { ' ': '·', '\n': '⏎', '\t': '⇥', '\r': '␍', '\u00a0': '⍽' };

// What the server sent: {encoding, vocabulary, special, ids, vocab: {id: hex}, specials: [id], groups: [[text, first, last]], facts, notes}
let data = null, page = 0, pinned = -1;

const bytesOf = (id) => data.vocab[id].match(/../g)?.map((h) => parseInt(h, 16)) ?? [];
const hexOf = (id) => (data.vocab[id].match(/../g) ?? []).join(' ');

// Bytes as runs: whole characters as text, the rest as bytes in hex.
function runs(bytes) {
  const found = [];
  let i = 0;
  while (i < bytes.length) {
    const lead = bytes[i];
    const n = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 0;
    let text = null;
    if (n && i + n <= bytes.length) try { text = strict.decode(new Uint8Array(bytes.slice(i, i + n))); } catch { text = null; }
    const last = found[found.length - 1];
    if (text !== null) {
      if (last && 'text' in last) last.text += text; else found.push({ text });
      i += n;
    } else {
      const hex = bytes[i].toString(16).padStart(2, '0');
      if (last && 'hex' in last) last.hex += ' ' + hex; else found.push({ hex });
      i += 1;
    }
  }
  return found;
}

// Text in which nothing is invisible: signs for blanks, code points for what has no shape of its own.
function write(into, text, lines) {
  let plain = '', first = true;
  const flush = () => { if (plain) into.append(plain); plain = ''; };
  for (const c of text) {
    const code = c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
    if (c in BLANKS) {
      flush();
      into.append(node('i', 'tk-blank', BLANKS[c]));
      if (c === '\n' && lines) into.append('\n');
    } else if (/^[\p{C}\p{Z}\ufffd]$/u.test(c)) {
      flush();
      into.append(node('i', 'tk-code', 'U+' + code));
    } else if (first && /^\p{M}$/u.test(c)) plain += '◌' + c;
    else plain += c;
    first = false;
  }
  flush();
}

function writeToken(into, id, lines) {
  for (const run of runs(bytesOf(id))) {
    if ('text' in run) write(into, run.text, lines);
    else into.append(node('i', 'tk-hex', run.hex));
  }
}

function chip(i, className) {
  const made = node('span', className + ' tk-t' + (i % TINTS));
  made.dataset.i = i;
  if (data.special_ids.has(data.ids[i])) made.classList.add('tk-special');
  return made;
}

function drawText() {
  const pane = document.createDocumentFragment();
  for (const [text, first, last] of data.groups) {
    let into = pane;
    if (last > first) { // these tokens share a character: show it once, and the bytes of each
      into = node('span', 'tk-shared');
      into.title = `${last - first + 1} tokens share what is written here`;
      const glyph = node('span', 'tk-glyph');
      write(glyph, text, false);
      into.append(glyph);
      pane.append(into);
    }
    for (let i = first; i <= last; i++) {
      const made = chip(i, 'tk-token');
      writeToken(made, data.ids[i], true);
      into.append(made);
    }
  }
  at('text').replaceChildren(pane);
}

function drawIds() {
  const pane = document.createDocumentFragment();
  for (let i = 0; i < data.shown; i++) {
    const made = chip(i, 'tk-id');
    made.textContent = data.ids[i];
    pane.append(made, ' ');
  }
  at('ids').replaceChildren(pane);
}

function drawFacts() {
  const list = at('facts');
  list.replaceChildren(...data.facts.map(([name, value, key]) => {
    const cell = node('div');
    const shown = node('dd', '', value);
    shown.id = 'tokens-' + key;
    cell.append(node('dt', '', name), shown);
    return cell;
  }));
  at('notes').replaceChildren(...data.notes.map(([kind, text]) => {
    const made = node('p', 'lab-message lab-' + kind, text);
    made.setAttribute('role', 'note');
    return made;
  }));
}

function rowsOf(from) {
  const rows = [];
  for (let i = from; i < Math.min(from + SHOWN_ROWS, data.ids.length); i++) {
    const row = node('tr');
    row.dataset.i = i;
    const token = node('td', 'tk-cell');
    writeToken(token, data.ids[i], false);
    row.append(node('td', 'num', grouped(i + 1)), node('td', 'num', String(data.ids[i])), token,
      node('td', 'tk-mono', hexOf(data.ids[i])), node('td', 'num', String(bytesOf(data.ids[i]).length)));
    rows.push(row);
  }
  return rows;
}

function drawTable() {
  const pages = Math.max(1, Math.ceil(data.ids.length / SHOWN_ROWS));
  page = Math.min(Math.max(page, 0), pages - 1);
  at('rows').replaceChildren(...rowsOf(page * SHOWN_ROWS));
  at('page').textContent = `page ${grouped(page + 1)} of ${grouped(pages)}`;
  at('first').disabled = at('previous').disabled = page === 0;
  at('last').disabled = at('next').disabled = page === pages - 1;
  at('summary').textContent = `Table of all ${grouped(data.ids.length)} tokens`;
}

// One token is the current one: lit in text, ids and table, and told in words.
function light(i) {
  element.querySelectorAll('.tk-on').forEach((lit) => lit.classList.remove('tk-on'));
  const told = at('told');
  if (i < 0 || i >= data.ids.length) { told.replaceChildren(node('span', 'tk-hint', data.ids.length ? 'Point at a token or an id; click to hold it; arrow keys move.' : 'No tokens.')); return; }
  element.querySelectorAll(`[data-i="${i}"]`).forEach((same) => same.classList.add('tk-on'));
  const id = data.ids[i], bytes = bytesOf(id);
  const shown = node('b', 'tk-told-token');
  shown.translate = false;
  writeToken(shown, id, false);
  const facts = [`token ${grouped(i + 1)} of ${grouped(data.ids.length)}`, `id ${id}`, `${bytes.length} ${bytes.length === 1 ? 'byte' : 'bytes'}: ${hexOf(id)}`];
  if (data.special_ids.has(id)) facts.push('special');
  told.replaceChildren(shown, ...facts.map((fact) => node('span', '', fact)));
  const whole = runs(bytes);
  if (i === pinned && data.mergeable && whole.length === 1 && whole[0].text && bytes.length > 1) {
    const button = node('button', 'tk-follow', 'Its merges ↓');
    button.type = 'button';
    button.addEventListener('click', () => follow(whole[0].text));
    told.append(button);
  }
}

// Put a token into the box of the section below, which shows its merges.
function follow(text) {
  const box = document.querySelector('#tokens-word input, #tokens-word textarea');
  box.value = text;
  box.dispatchEvent(new Event('input', { bubbles: true }));
  box.scrollIntoView({ block: 'center', behavior: 'smooth' });
}

function draw() {
  data = JSON.parse(props.value);
  data.special_ids = new Set(data.specials);
  page = 0; pinned = -1;
  drawFacts(); drawText(); drawIds(); drawTable(); light(-1);
  element.dataset.drawn = data.drawn;
}

function csv() {
  const quoted = (text) => '"' + text.replaceAll('"', '""') + '"';
  const lines = ['position,id,token,bytes_hex'];
  data.ids.forEach((id, i) => {
    let token = runs(bytesOf(id)).map((run) => run.text ?? run.hex.split(' ').map((h) => '\\x' + h).join('')).join('');
    if (/^[=+\-@\t\r]/.test(token)) token = "'" + token; // no formula for a spreadsheet; the exact bytes stand beside it
    lines.push(`${i + 1},${id},${quoted(token)},${hexOf(id).replaceAll(' ', '')}`);
  });
  const link = node('a');
  link.href = URL.createObjectURL(new Blob(['\ufeff' + lines.join('\r\n') + '\r\n'], { type: 'text/csv;charset=utf-8' }));
  link.download = `tokens-${data.encoding.replace(/[^A-Za-z0-9._-]/g, '-')}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copy() {
  const text = '[' + data.ids.join(', ') + ']';
  const button = at('copy');
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or a page without https
    const box = node('textarea');
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand('copy');
    box.remove();
  }
  button.textContent = `Copied ${grouped(data.ids.length)} ids`;
  setTimeout(() => { button.textContent = 'Copy ids'; }, 1800);
}

const numberOf = (event) => {
  const found = event.target.closest?.('[data-i]');
  return found && element.contains(found) ? Number(found.dataset.i) : -1;
};
element.addEventListener('mouseover', (event) => { const i = numberOf(event); if (i >= 0) light(i); });
element.addEventListener('mouseleave', () => { if (data) light(pinned); });
element.addEventListener('click', (event) => {
  const i = numberOf(event);
  if (i >= 0) { pinned = pinned === i ? -1 : i; light(i); }
});
element.addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || !event.target.closest?.('.tk-text, .tk-ids')) return;
  event.preventDefault();
  pinned = Math.min(Math.max(pinned + step, 0), data.shown - 1);
  light(pinned);
  element.querySelector('.tk-on')?.scrollIntoView({ block: 'nearest' });
});
const turn = (name, to) => at(name).addEventListener('click', () => { page = to(); drawTable(); });
turn('first', () => 0);
turn('previous', () => page - 1);
turn('next', () => page + 1);
turn('last', () => Infinity);
at('copy').addEventListener('click', copy);
at('csv').addEventListener('click', csv);
const duel = document.querySelector('#tokens-duel');
duel?.setAttribute('role', 'group');
duel?.setAttribute('aria-label', 'Chart of all encodings on all texts; its numbers stand in the table below it.');
watch('value', draw);
if (props.value) draw();
