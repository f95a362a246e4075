// The Playground's output: one pane a setting. The value is a text that only grows, one JSON line a piece of news:
// {begin}, [row, id, piece, shown, p, chance, finish, gone], {note}, {rate}, {end}. All text goes in through textContent.
// A conversation lives here, in the panes: it is sent along with the next message (`window.lab.playground.talk`).
const root = element, panes = [];
const FINISHED = { eot: 'the model ended the text', stop: 'a stop string was met', length: 'the maximum length was reached' };
const EDGES = [0.01, 0.05, 0.25, 0.75];
const node = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const percent = (p) => (p >= 0.9995 ? '100 %' : p >= 0.001 ? (p * 100).toFixed(1) + ' %' : '< 0.1 %');
const bin = (p) => EDGES.filter((edge) => p >= edge).length;

let read = '', asked = null, running = false, opened = null, restarting = false, halted = 0, newest = 0, cut = -1; // halted: when Stop was last pressed, 0 if not; newest: when the text was asked for; cut: the one that was halted

function pane(row) {
  const made = node('section', 'pg-pane');
  made.dataset.row = row;
  const name = node('h4', 'pg-name', 'AB'[row]);
  const text = node('div', 'pg-text');
  text.id = 'playground-text-' + 'ab'[row];
  text.tabIndex = 0;
  text.setAttribute('role', 'group');
  text.setAttribute('aria-label', 'Prompt and new text; arrow keys move between tokens, Enter opens one');
  text.translate = false;
  const prompt = node('span', 'pg-prompt'), fresh = node('span', 'pg-new'), reads = node('details', 'pg-reads');
  text.append(prompt, fresh);
  const told = node('p', 'pg-told'), notes = node('div', 'pg-notes'), copy = node('button', 'pg-copy', 'Copy text');
  told.setAttribute('role', 'status');
  copy.type = 'button';
  const foot = node('div', 'pg-foot');
  foot.append(told, copy);
  made.append(name, text, foot, notes, reads);
  return { row, made, text, prompt, fresh, reads, told, notes, copy, tokens: [], shown: 0, end: 0, late: 0, gone: 0, finish: null, rate: null };
}

function begin(news) {
  asked = news;
  running = true;
  halted = 0;
  const compared = news.configs.length > 1;
  for (const row of news.rows) {
    panes[row] = pane(row);
    panes[row].asked = news.asked[row];
    write(panes[row], news.reads[row]);
  }
  if (news.sent) emptied(news.asked[news.rows[0]].prompt);
  if (!compared) panes.length = 1;
  root.querySelector('.pg-panes').replaceChildren(...panes.filter(Boolean).map((one) => one.made));
  root.querySelector('.pg-panes').classList.toggle('pg-two', compared);
  opened = null;
  state();
}

// The text with its special tokens as chips: [text, id of a special token or null].
const spelled = (pieces) => pieces.map(([text, id]) => {
  if (id === null) return document.createTextNode(text);
  const chip = node('span', 'pg-special', text);
  chip.title = `a token of its own: id ${id}`;
  return chip;
});

// What stands before the new text: the prompt, or the turns of the conversation; and what the model reads of it.
function write(one, { pieces, count }) {
  const { chat, prompt } = one.asked;
  if (!chat) {
    one.prompt.replaceChildren(...spelled(pieces));
    const front = pieces[0][1] !== null;
    if (front) one.notes.append(node('p', 'pg-aside', `${pieces[0][0]} stands in front: this model’s texts begin with it.`));
    return;
  }
  const turn = (role, text) => {
    const made = node('span', 'pg-turn pg-' + role);
    made.append(node('span', 'pg-role', role), node('span', 'pg-said', text));
    return made;
  };
  const system = chat.system.trim() ? [turn('system', chat.system)] : [];
  one.prompt.append(...system, ...chat.turns.map(({ role, content }) => turn(role, content)), turn('user', prompt), node('span', 'pg-role', 'assistant'));
  one.text.classList.add('pg-talk');
  requestAnimationFrame(() => { one.text.scrollTop = one.text.scrollHeight; });
  if (count === null) return; // a server writes the conversation down in its own way
  const read = node('div', 'pg-readtext');
  read.tabIndex = 0;
  read.translate = false;
  read.append(...spelled(pieces));
  one.reads.append(node('summary', '', `What the model reads: ${count.toLocaleString('en')} tokens`), read);
}

// A message that was sent leaves its box, unless something else stands there by now.
function emptied(message) {
  const box = document.querySelector('#playground-prompt textarea');
  if (!box || box.value !== message) return;
  box.value = '';
  box.dispatchEvent(new Event('input', { bubbles: true }));
}

// The turns so far by pane: what was asked last, and what of the answer is on the screen.
const turns = (one) => (one.asked.chat ? [...one.asked.chat.turns, { role: 'user', content: one.asked.prompt }, { role: 'assistant', content: one.fresh.textContent }] : []);
window.lab.playground = {
  wish: '',
  talk: () => JSON.stringify(Object.fromEntries(panes.map((one, row) => [row, turns(one)]).filter(([, said]) => said.length))),
  fresh: () => {
    if (running) stop();
    panes.length = 0;
    opened = null;
    root.querySelector('.pg-panes').replaceChildren(node('p', 'lab-message lab-note', 'A new conversation: type a message and send it.'));
    document.querySelector('#playground-prompt textarea')?.focus();
  },
};

// `p` is null where a server tells no probability; `top` are the likeliest tokens that it told.
function add([row, id, piece, shown, p, chance, finish, gone, top]) {
  const one = panes[row], i = one.tokens.length;
  const chip = node('span', 'pg-token pg-p' + (p === null ? 4 : bin(p)));
  chip.dataset.i = i;
  chip.title = p === null ? 'the server tells no probability' : top ? `${percent(p)} by the model` : `${percent(p)} by the model, drawn with ${percent(chance)} (id ${id})`;
  one.tokens.push({ id, piece, start: one.end, chip, p, chance, top });
  one.end += piece.length;
  one.shown = shown;
  one.fresh.append(chip);
  for (; one.late < one.tokens.length; one.late++) { // text held back for a stop string comes when it is certain
    const late = one.tokens[one.late];
    const part = late.piece.slice(0, Math.max(0, shown - late.start));
    if (late.chip.textContent !== part) late.chip.textContent = part;
    late.chip.classList.toggle('pg-bare', !late.piece); // a part of a character, or the end of the text
    late.chip.classList.toggle('pg-unsaid', Boolean(late.piece) && !part);
    if (part.length < late.piece.length) break;
  }
  if (finish) one.finish = finish;
  for (; one.gone < gone; one.gone++) one.tokens[one.gone].chip.classList.add('pg-gone');
}

function state() {
  for (const one of panes.filter(Boolean)) {
    const n = one.tokens.length, facts = [`${n.toLocaleString('en')} ${n === 1 ? 'token' : 'tokens'}`];
    if (one.rate) facts.push(`${Math.round(one.rate).toLocaleString('en')} tokens/s`);
    if (one.finish) facts.push(FINISHED[one.finish] ?? one.finish);
    else if (running) facts.push('writing');
    one.told.textContent = facts.join(' · ');
    one.made.classList.toggle('pg-writing', running && !one.finish);
  }
  root.dataset.state = running ? 'running' : 'still';
}

function stopped(why) {
  running = false;
  panes.forEach((one) => { if (one && !one.finish) one.finish = why; });
  state();
}

function stop() {
  if (halted) halted = Date.now();
  document.getElementById('playground-stop')?.click();
}

function hear() {
  const value = props.value || '';
  const born = Number(value.match(/^\{"born":(\d+)/)?.[1] ?? newest);
  if (born < newest) return; // what is left of a text that another one has replaced
  newest = born;
  let fresh = value;
  if (value.startsWith(read) && read) fresh = value.slice(read.length);
  if (!fresh) return;
  read = value;
  for (const line of fresh.split('\n')) {
    if (!line) continue;
    const news = JSON.parse(line);
    if (Array.isArray(news)) {
      if (halted) cut = born; // what follows in this text would not join what stands there
      if (cut !== born) add(news);
    }
    else if (news.begin) begin(news.begin);
    else if (news.note) panes[news.row]?.notes.append(node('p', 'lab-message lab-warning', news.note));
    else if (news.rate) { if (panes[news.row]) panes[news.row].rate = news.rate; }
    else if (news.message) { panes.length = 0; root.querySelector('.pg-panes').replaceChildren(node('p', 'lab-message lab-note', news.message)); }
    else if (news.end) stopped('stopped');
  }
  state();
  if (halted && !restarting && Date.now() - halted > 1000) stop(); // it came before the server knew the text: say it again
  const first = panes[asked?.rows[0] ?? 0];
  const at = asked?.forced.length ? asked.forced.length - 1 : 0;
  if (!opened && first?.tokens.length > at) open(first, at, true);
}

// A token is opened: its place goes to the server, which answers with the table of what could have stood there.
function open(one, i, quiet) {
  if (i < 0 || i >= one.tokens.length) return;
  opened = { row: one.row, i };
  root.querySelectorAll('.pg-on').forEach((lit) => lit.classList.remove('pg-on'));
  one.tokens[i].chip.classList.add('pg-on');
  // Gradio sends the data of the first of several events that wait; this is read when the question is really sent
  window.lab.playground.wish = JSON.stringify({ row: one.row, after: one.tokens.slice(0, i).map((token) => token.id), chosen: one.tokens[i].id, asked: one.asked, top: one.tokens[i].top ?? null });
  trigger('select', { text: one.tokens[i].piece, quiet: Boolean(quiet) });
}

root.addEventListener('click', async (event) => {
  const home = event.target.closest('.pg-pane');
  if (!home) return;
  const one = panes[+home.dataset.row];
  const chip = event.target.closest('.pg-token');
  if (chip) { if (getSelection().isCollapsed) open(one, +chip.dataset.i); return; }
  if (event.target.closest('.pg-copy')) {
    const text = one.fresh.textContent;
    try { await navigator.clipboard.writeText(text); one.copy.textContent = 'Copied'; } catch { getSelection().selectAllChildren(one.fresh); one.copy.textContent = 'Selected: Ctrl-C'; }
    setTimeout(() => { one.copy.textContent = 'Copy text'; }, 1800);
  }
});

root.addEventListener('keydown', (event) => {
  const home = event.target.closest?.('.pg-text')?.closest('.pg-pane');
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!home || !step || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const one = panes[+home.dataset.row];
  open(one, (opened?.row === one.row ? opened.i : step > 0 ? -1 : one.tokens.length) + step);
});

// The keyboard is enough: Ctrl-Enter generates, Escape stops, wherever the focus is in this tab.
document.addEventListener('keydown', (event) => {
  if (!root.isConnected || !root.offsetParent) return;
  if ((event.ctrlKey || event.metaKey) && event.key === 'Enter') {
    event.preventDefault();
    event.stopPropagation();
    document.getElementById('playground-generate')?.click();
  } else if (event.key === 'Escape' && running) {
    event.preventDefault();
    stop();
  }
}, true);
// Whoever starts a text while one is being written stops that one first: two writers would share one pane.
document.addEventListener('click', (event) => {
  if (!running) return;
  if (event.target.closest?.('#playground-stop')) { halted = Date.now(); return stopped('stopped by you'); }
  const starter = event.target.closest?.('#playground-generate, #playground-table .pg-go');
  if (!starter) return;
  event.preventDefault();
  event.stopPropagation();
  stop();
  if (restarting) return;
  restarting = true;
  setTimeout(() => { restarting = false; halted = 0; starter.click(); }, 600);
}, true);

watch('value', hear);
hear();
