// The Class tab: how to join, the race, and the teacher's wall. Everything foreign goes in as text.
const root = element.querySelector('.cl-room');
const { room } = window.lab, { make, post, tell } = room;
const teach = async (body) => { try { draw(await post('teach', body)); await room.ask(); } catch (error) { tell(error); } };
const join = make('section', { class: 'cl-join' }), race = make('section', { class: 'cl-race' }), wall = make('section', { class: 'cl-wall' }), book = make('section', { class: 'cl-teacher' });
root.replaceChildren(join, race, wall, book);

// where the page was opened, also behind a proxy; on the lab's own machine, where others find it
const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
const address = (local && window.lab.reachable) || (location.origin + location.pathname);
join.append(
  make('div', {}, make('h3', {}, 'Join'), make('p', { class: 'cl-address' }, address),
    make('p', { class: 'lab-small' }, 'Open this address on a phone or laptop in the same network, or point a camera at the code.'),
    make('p', {}, make('button', { type: 'button', id: 'class-rename', onclick: () => document.getElementById('lab-name')?.click() }, 'Say what you are called'), ' ',
      make('button', { type: 'button', onclick: () => document.getElementById('lab-lessons')?.click() }, 'Lessons'), ' ',
      make('a', { class: 'cl-button', href: 'lab/hand-in', download: true }, 'Hand in'))),
  make('img', { class: 'lab-qr', alt: `QR code of ${address}`, src: `lab/qr?text=${encodeURIComponent(address)}`, width: 200, height: 200 }));

const table = (heads, rows) => make('div', { class: 'cl-scroll' }, make('table', { class: 'lab-table' },
  make('thead', {}, make('tr', {}, ...heads.map((head) => make('th', { scope: 'col' }, head)))),
  make('tbody', {}, ...rows.map((row) => make('tr', row.class ? { class: row.class } : {}, ...row.cells.map((cell) => make('td', {}, cell)))))));
const short = (x) => (typeof x === 'number' ? x.toPrecision(4) : '–');

function drawRace(found) {
  race.replaceChildren();
  if (!found.rules) return;
  race.append(make('h3', {}, 'Race'), make('p', {}, `Train on ${found.rules.dataset} from new weights with at most ${found.rules.tokens.toLocaleString('en')} tokens (steps × batch × context). The lowest bits per byte of held-out text lead. `,
    make('a', { href: found.link }, 'Take part')));
  race.append(found.rows.length ? table(['', 'Who', 'Bits per byte', 'Run', 'Tokens read', 'Status'], found.rows.map((row) => ({ cells: [String(row.rank), row.who, short(row.bits_per_byte), row.run, row.tokens.toLocaleString('en'), row.status] })))
    : make('p', { class: 'lab-small' }, 'Nobody has a result yet: the first look at a model counts.'));
}

const where = (one) => (one.lesson ? `${one.lesson}, step ${one.step}` : document.getElementById(`tab-${one.tab}-button`)?.textContent || one.tab || '–');
function aboutRun(run) {
  if (!run) return '–';
  const box = make('span', {}, `${run.name}: ${run.status}${run.max_steps ? `, step ${run.step} of ${run.max_steps}` : ''}${run.loss === null ? '' : `, loss ${short(run.loss)}`}`);
  if (run.message) box.append(make('small', {}, ` ${run.message}`));
  if (run.status === 'running' || run.status === 'waiting') box.append(' ', make('button', { type: 'button', class: 'cl-mini', onclick: () => teach({ do: 'stop', run: run.name }) }, 'Stop'));
  return box;
}

const level = (one) => make('span', { class: `cl-level is-${one.level}` }, one.level);
function line(one) {
  const said = make('div', { class: 'cl-said' }, one.text);
  if (one.details) said.append(make('details', {}, make('summary', {}, 'Where it happened'), make('pre', {}, one.details)));
  return { cells: [new Date(1000 * one.time).toLocaleTimeString('en-GB'), level(one), said] };
}
async function readLog() {
  try {
    const { lines } = await post('log');
    logged.replaceChildren(lines.length ? table(['Time', 'Level', 'What'], lines.map(line)) : make('p', {}, 'Nothing has been logged yet.'));
  } catch (error) { tell(error); }
}
const logged = make('div', { id: 'class-lines' });
book.append(make('details', { id: 'class-log', ontoggle: (event) => { if (event.target.id === 'class-log' && event.target.open) readLog(); } }, make('summary', {}, 'Log'),
  make('p', { class: 'lab-small' }, 'What the lab has noted, the newest first: errors with the number that a student was shown, runs that began and ended, what was refused. Keys and passwords are taken out.'),
  make('button', { type: 'button', id: 'class-log-again', onclick: readLog }, 'Read again'), logged));

let drawn = '';
function draw(found) {
  const mark = JSON.stringify(found);
  if (mark === drawn || wall.contains(document.activeElement) && document.activeElement.tagName === 'INPUT') return;
  drawn = mark;
  const present = found.people.filter((one) => !one.away).length;
  const limits = make('form', { class: 'cl-limits', onsubmit: (event) => {
    event.preventDefault();
    teach({ do: 'limits', ...Object.fromEntries(found.limits.map((one) => [one.name, Number(event.target.elements[one.name].value)])) });
  } }, ...found.limits.map((one) => make('label', {}, `Most ${one.said} (0: any)`, make('input', { name: one.name, type: 'number', min: 0, step: 1, value: one.value }))), make('button', { type: 'submit', id: 'class-limits' }, 'Set limits'));
  const dataset = make('input', { value: found.race?.dataset ?? 'stories', 'aria-label': 'Text of the race' }), tokens = make('input', { type: 'number', min: 1000, value: found.race?.tokens ?? 500000, 'aria-label': 'Token budget' });
  wall.replaceChildren(
    make('h3', {}, 'The wall'), make('p', { class: 'lab-small', id: 'class-count' }, `${present} here of ${found.people.length}; ${found.running} runs go on, ${found.waiting} wait${found.paused ? '; the queue is held back' : ''}.`),
    make('div', { class: 'cl-actions' },
      make('button', { type: 'button', id: 'class-pause', onclick: () => teach({ do: found.paused ? 'resume' : 'pause' }) }, found.paused ? 'Let the queue go on' : 'Hold the queue back'),
      make('button', { type: 'button', id: 'class-clear', onclick: () => { if (confirm('Stop all runs of visitors and forget names, answers and questions?')) teach({ do: 'clear' }); } }, 'Clear the room'),
      make('button', { type: 'button', id: 'class-clear-all', onclick: () => { if (confirm('Clear the room and delete the ended runs of visitors with their models for good?')) teach({ do: 'clear', delete: true }); } }, 'Clear it and delete runs')),
    found.people.length ? table(['Name', 'Where', 'Answers', 'Run', 'Last error'], found.people.map((one) => ({ class: one.away ? 'is-away' : '', cells: [make('span', { translate: 'no' }, one.name), where(one), String(one.answers), aboutRun(one.run), one.error || '–'] }))) : make('p', {}, 'Nobody is here yet.'),
    make('details', {}, make('summary', {}, 'Limits of each visitor'), limits),
    make('details', {}, make('summary', {}, 'A race under one token budget'), make('div', { class: 'cl-limits' }, make('label', {}, 'Text', dataset), make('label', {}, 'Tokens', tokens),
      make('button', { type: 'button', id: 'class-race', onclick: () => teach({ do: 'race', dataset: dataset.value, tokens: Number(tokens.value) }) }, 'Start the race'),
      found.race ? make('button', { type: 'button', onclick: () => teach({ do: 'race_over' }) }, 'End it') : null)));
}

async function again() {
  const heard = room.heard();
  document.body.classList.toggle('lab-teaches', Boolean(heard?.teacher));
  if (root.offsetParent && !document.hidden && heard) {
    try {
      if (heard.teacher) draw(await post('wall'));
      if (heard.race || race.childElementCount) drawRace(await post('board'));
    } catch { /* the server restarts: the next question finds it */ }
  }
  if (root.isConnected) setTimeout(again, 2500);
}
again();
