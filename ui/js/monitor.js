// Watches one run (ui/monitor.py): asks once a second while it goes on, writes only what has changed, tells Gradio of a new status.
const root = element.querySelector('.lab-monitor');
const make = (name) => { const node = document.createElement('div'); node.className = name; root.append(node); return node; };
const standing = make('lab-standing');
standing.setAttribute('aria-live', 'off');
const columns = make('lab-looks');
const place = (title, name) => {
  const card = document.createElement('section');
  card.className = `lab-look ${name}`;
  const heading = document.createElement('h4');
  heading.textContent = title;
  const body = document.createElement('div');
  card.append(heading, body);
  card.hidden = true;
  columns.append(card);
  return { card, body };
};
const texts = place('What it writes', 'lab-samples');
texts.body.tabIndex = 0; // it scrolls
const worked = place('One position worked out', 'lab-worked');

let source = '', offset = 0, status = null, busy = false, wait = 0;
const ENDED = ['finished', 'stopped', 'failed', 'crashed', 'gone'];

function put(node, html) { if (node.dataset.html !== html) { node.innerHTML = html; node.dataset.html = html; } } // html is made and escaped by ui/figures
function clear() { texts.body.replaceChildren(); texts.card.hidden = worked.card.hidden = true; worked.body.replaceChildren(); }
function settle() { // the samples stand below the chart when the tab has a place for them there
  const own = element.closest('[id]:not([id^="html-"])')?.id;
  const elsewhere = document.querySelector(`[data-looks-of="${own}"]`);
  if (elsewhere && columns.parentElement !== elsewhere) elsewhere.replaceChildren(columns);
}
function show(answer) {
  settle();
  if (answer.fresh) clear();
  put(standing, answer.html);
  offset = answer.offset;
  if (answer.position) { put(worked.body, answer.position); worked.card.hidden = false; }
  for (const { step, html } of answer.samples) {
    texts.body.querySelector(`[data-step="${step}"]`)?.remove();
    texts.body.insertAdjacentHTML('afterbegin', html);
    texts.card.hidden = false;
  }
  while (texts.body.children.length > 12) texts.body.lastElementChild.remove();
}
async function tick() {
  if (!root.isConnected) { clearInterval(clock); return; }
  if (busy || !source || document.visibilityState !== 'visible' || !root.offsetParent) return;
  if (wait > 0) { wait--; return; }
  busy = true;
  const asked = source;
  try {
    const answer = await server.lab_watch({ source, offset });
    if (asked !== source) return;
    if (answer.gone) answer.status = 'gone'; else show(answer);
    if (answer.gone && status !== 'gone') { standing.textContent = 'This run is not here any more.'; delete standing.dataset.html; clear(); }
    if (status !== null && status !== answer.status) trigger('input', { status: answer.status });
    status = answer.status;
    wait = ENDED.includes(status) ? 4 : 0;
  } catch (error) {
    wait = 2; // the server is away: what is shown stays
  } finally { busy = false; }
}
function choose() {
  const named = props.value || '';
  if (named === source) { wait = 0; tick(); return; }
  source = named; offset = 0; status = null; wait = 0;
  clear(); put(standing, '');
  tick();
}
watch('value', choose);
const clock = setInterval(tick, 1000);
choose();
