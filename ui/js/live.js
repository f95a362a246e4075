// The live chart (ui/live.py): asks for the points after those it has, keeps each curve short, redraws only on news.
const PANELS = { // `some`: only of runs that have such values
  loss: { title: 'Loss', unit: 'nats a token', lines: ['loss', 'val_loss'], log: true },
  perplexity: { title: 'Perplexity', unit: 'exp(loss), log scale', lines: ['loss', 'val_loss'], map: Math.exp, log: true, always: true, perToken: true },
  accuracy: { title: 'Accuracy', unit: 'share of rows with the right class', lines: ['accuracy', 'val_accuracy'], some: true },
  reward_margin: { title: 'Margin', unit: 'reward of chosen less rejected', lines: ['reward_margin', 'val_reward_margin'], some: true },
  rewards: { title: 'Rewards', unit: 'beta × (log p now − log p at the start)', lines: ['reward_chosen', 'val_reward_chosen', 'reward_rejected', 'val_reward_rejected'], some: true },
  reward_accuracy: { title: 'Pairs in the right order', unit: 'share with a margin above 0', lines: ['reward_accuracy', 'val_reward_accuracy'], some: true },
  old_loss: { title: 'Forgetting', unit: 'nats a token, on rows or text not learned from', lines: ['val_loss', 'old_loss'], needs: 'old_loss', log: true, some: true },
  bits_per_byte: { title: 'Bits per byte', unit: 'validation', lines: ['bits_per_byte'], log: true },
  learning_rate: { title: 'Learning rate', unit: '', lines: ['learning_rate'] },
  grad_norm: { title: 'Gradient norm', unit: 'before clipping', lines: ['grad_norm'], log: true },
  tokens_per_second: { title: 'Tokens per second', unit: '', lines: ['tokens_per_second'] },
};
const EVALUATED = new Set(['val_loss', 'bits_per_byte', 'old_loss', 'val_accuracy', 'val_reward_chosen', 'val_reward_rejected', 'val_reward_margin', 'val_reward_accuracy']); // dashed with markers, never smoothed
const NAMES = { loss: 'training', val_loss: 'validation', bits_per_byte: 'validation', old_loss: 'old text', accuracy: 'training', val_accuracy: 'validation',
  reward_margin: 'training', val_reward_margin: 'validation', reward_accuracy: 'training', val_reward_accuracy: 'validation',
  reward_chosen: 'chosen', val_reward_chosen: 'chosen, validation', reward_rejected: 'rejected', val_reward_rejected: 'rejected, validation' };
const OWN = { old_loss: 3, reward_chosen: 2, val_reward_chosen: 2, reward_rejected: 3, val_reward_rejected: 3 }; // place in COLOURS of curves that are neither training nor validation
const COLOURS = ['--lab-train', '--lab-val', '--lab-3', '--lab-4', '--lab-5', '--lab-6'];
const MOST = 300;
const ENDED = ['finished', 'stopped', 'failed', 'crashed'];

const root = element.querySelector('.lab-live');
const css = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) key === 'class' ? (node.className = value) : node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const short = (value) => {
  if (value === undefined || value === null || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return '∞';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toLocaleString('en', { maximumFractionDigits: size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 4 });
};

let sources = [];
const held = new Map(); // source -> {offset, status, curves: {metric: [steps, values]}}
let open = new Set("PANELS");
let smoothing = 0.6, logX = false, logY = false, busy = false, wait = 0, stale = true;

// --- the frame: which panels, smoothing, axes, downloads -----------------------------------------------------
const chips = make('div', { class: 'lab-chips', role: 'group', 'aria-label': 'Curves to show' });
for (const [key, panel] of Object.entries(PANELS)) {
  const chip = make('button', { type: 'button', class: 'lab-chip', 'aria-pressed': String(open.has(key)), 'data-panel': key }, panel.title);
  chip.addEventListener('click', () => {
    open.has(key) ? open.delete(key) : open.add(key);
    chip.setAttribute('aria-pressed', String(open.has(key)));
    draw();
  });
  chips.append(chip);
}
const toggle = (text, onchange) => {
  const box = make('input', { type: 'checkbox' });
  box.addEventListener('change', () => { onchange(box.checked); draw(); });
  return make('label', { class: 'lab-toggle' }, box, ' ' + text);
};
const slider = make('input', { type: 'range', min: '0', max: '0.98', step: '0.02', value: String(smoothing), 'aria-label': 'Smoothing of the training curve' });
slider.addEventListener('input', () => { smoothing = Number(slider.value); draw(); });
const action = (text, onclick) => {
  const button = make('button', { type: 'button', class: 'lab-link' }, text);
  button.addEventListener('click', onclick);
  return button;
};
const save = (name, href) => { const a = make('a', { download: name, href }); document.body.append(a); a.click(); a.remove(); };
const stem = () => sources.map((s) => s.split(':')[1]).join('+').slice(0, 80) || 'run';
const tools = make('div', { class: 'lab-tools' },
  make('label', { class: 'lab-toggle' }, 'Smoothing ', slider),
  toggle('Log steps', (on) => { logX = on; }), toggle('Log values', (on) => { logY = on; }),
  action('PNG', savePictures), action('CSV', saveTable));
const legend = make('div', { class: 'lab-legend', 'aria-hidden': 'true' });
const grid = make('div', { class: 'lab-panels' });
const rows = make('div', { class: 'lab-scroll lab-live-table', tabindex: 0 });
const details = make('details', { class: 'lab-details' }, make('summary', {}, 'The numbers behind the curves'), rows);
details.addEventListener('toggle', () => { if (details.open) fillTable(); });
root.replaceChildren(chips, tools, legend, grid, details);

// --- data ---------------------------------------------------------------------------------------------------
function thin([x, y]) { // the lowest and highest point of each bucket, first and last of all; as in ui/live.py
  if (x.length <= 2 * MOST) return [x, y];
  const kept = new Set([0, x.length - 1]), buckets = (MOST - 2) / 2, n = x.length - 2;
  for (let b = 0; b < buckets; b++) {
    const from = 1 + Math.floor((b * n) / buckets), to = 1 + Math.floor(((b + 1) * n) / buckets);
    let low = from, high = from;
    for (let i = from; i < to; i++) { if (y[i] < y[low]) low = i; if (y[i] > y[high]) high = i; }
    kept.add(low).add(high);
  }
  const order = [...kept].sort((a, b) => a - b);
  return [order.map((i) => x[i]), order.map((i) => y[i])];
}
function take(source, answer) { // true when something is new
  const have = held.get(source);
  if (!have) return false;
  if (answer.gone) { const was = have.status; have.status = 'gone'; return was !== 'gone'; }
  if (answer.fresh) { have.curves = {}; delete have.best; delete have.early; }
  if (answer.per_token !== undefined) have.perToken = answer.per_token;
  if (answer.best) have.best = answer.best;
  if (answer.early !== undefined) have.early = answer.early;
  let isNew = answer.fresh || have.status !== answer.status;
  for (const [metric, [x, y]] of Object.entries(answer.curves)) {
    const [oldX, oldY] = have.curves[metric] ?? [[], []];
    have.curves[metric] = thin([oldX.concat(x), oldY.concat(y)]);
    isNew = true;
  }
  have.offset = answer.offset;
  have.status = answer.status;
  return isNew;
}
async function tick() {
  if (!root.isConnected) { clearInterval(clock); theme.disconnect(); return; }
  if (busy || document.visibilityState !== 'visible' || !root.offsetParent || !window.Plotly) return;
  if (wait > 0) { wait--; if (!stale) return; }
  busy = true;
  try {
    if (sources.length) {
      const wanted = Object.fromEntries(sources.map((s) => [s, held.get(s).offset]));
      const answers = await server.lab_poll(wanted);
      for (const [source, answer] of Object.entries(answers)) if (take(source, answer)) stale = true;
      // an ended run may still be resumed: look again, but seldom
      wait = sources.every((s) => [...ENDED, 'gone'].includes(held.get(s)?.status)) ? 4 : 0;
    }
    if (stale) { stale = false; await draw(); if (details.open) fillTable(); }
  } catch (error) {
    wait = 2; // the server is away: the curves stay
  } finally { busy = false; }
}
function choose() {
  let named = [];
  try { named = JSON.parse(props.value || '[]'); } catch (error) { named = []; }
  sources = named;
  for (const source of [...held.keys()]) if (!sources.includes(source)) held.delete(source);
  for (const source of sources) if (!held.has(source)) held.set(source, { offset: 0, status: '', curves: {} });
  stale = true; wait = 0;
  tick();
}

// --- drawing ------------------------------------------------------------------------------------------------
const label = (metric) => NAMES[metric] ?? '';
const colour = (index, metric) => css(COLOURS[sources.length > 1 ? index : OWN[metric] ?? (EVALUATED.has(metric) ? 1 : 0)]);
// the curves of a source that belong into a panel: no perplexity where the loss is none of tokens
const linesOf = (key, source) => {
  const panel = PANELS[key], have = held.get(source);
  if (!have || (panel.perToken && have.perToken === false) || (panel.needs && !have.curves[panel.needs])) return [];
  return panel.lines.filter((metric) => have.curves[metric]?.[0].length);
};
const shows = (key) => { // a panel that no source can have is neither drawn nor offered
  const panel = PANELS[key];
  if (panel.some) return sources.some((source) => linesOf(key, source).length);
  return !panel.perToken || !sources.length || sources.some((source) => held.get(source)?.perToken !== false);
};
function smoothed(y) { // exponential moving average, started without bias
  let mean = 0, weight = 0;
  return y.map((v) => { mean = smoothing * mean + (1 - smoothing) * v; weight = smoothing * weight + (1 - smoothing); return mean / weight; });
}
function traces(key) {
  const panel = PANELS[key], found = [];
  sources.forEach((source, index) => {
    for (const metric of linesOf(key, source)) {
      const [x, raw] = held.get(source).curves[metric];
      const mapped = panel.map ? raw.map(panel.map).map((v) => (Number.isFinite(v) ? v : null)) : raw;
      const name = [sources.length > 1 ? source.split(':')[1] : '', label(metric)].filter(Boolean).join(' ') || panel.title;
      const line = { x, y: mapped, name, type: 'scatter', mode: 'lines', hovertemplate: '%{y:.5~g}', line: { color: colour(index, metric), width: 2 } };
      if (EVALUATED.has(metric)) {
        found.push({ ...line, mode: 'lines+markers', line: { ...line.line, dash: 'dash' }, marker: { size: 6, symbol: ['circle', 'square', 'diamond', 'triangle-up', 'x', 'star'][index % 6], color: colour(index, metric) } });
      } else if (smoothing > 0 && x.length > 4 && (panel.log || panel.some)) {
        found.push({ ...line, opacity: 0.3, line: { ...line.line, width: 1 }, hoverinfo: 'skip', hovertemplate: undefined, showlegend: false });
        found.push({ ...line, y: panel.map ? smoothed(raw).map(panel.map) : smoothed(raw) });
      } else {
        found.push({ ...line, mode: x.length === 1 ? 'markers' : 'lines' });
      }
    }
    const best = key === 'loss' && held.get(source)?.best;
    if (best) {
      found.push({ x: [best[0]], y: [best[1]], name: 'best so far', type: 'scatter', mode: 'markers+text', text: ['best'], textposition: 'top center', cliponaxis: false,
        hovertemplate: 'lowest validation loss: %{y:.5~g}', marker: { size: 13, symbol: 'star', color: css('--lab-good'), line: { width: 1, color: css('--background-fill-primary') } } });
    }
  });
  return found;
}
function early(key) { // where patience ended a run
  return key !== 'loss' ? [] : sources.filter((source) => held.get(source)?.early !== undefined).map((source) => held.get(source).early);
}
const unit = (key) => (key === 'loss' && sources.length && sources.every((source) => held.get(source)?.perToken === false) ? 'nats a row' : PANELS[key].unit);
function layout(key) {
  const axis = { gridcolor: css('--lab-grid'), zeroline: false, linecolor: css('--border-color-primary'), ticks: '', automargin: true };
  return {
    uirevision: [key, logX, logY, sources.join()].join(), height: 270, margin: { l: 50, r: 12, t: 8, b: 36 }, showlegend: false, hovermode: 'x unified',
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: { color: css('--body-text-color'), size: 12, family: css('--font') || 'sans-serif' },
    hoverlabel: { bgcolor: css('--background-fill-secondary'), font: { color: css('--body-text-color') } },
    xaxis: { ...axis, type: logX ? 'log' : 'linear', title: { text: 'step', standoff: 6 } },
    shapes: early(key).map((step) => ({ type: 'line', x0: step, x1: step, yref: 'paper', y0: 0, y1: 1, line: { dash: 'dot', width: 1.5, color: css('--body-text-color-subdued') } })),
    annotations: early(key).map((step) => ({ x: logX ? Math.log10(step) : step, y: 1, yref: 'paper', text: 'stopped early', showarrow: false, xanchor: 'right', yanchor: 'top', xshift: -4, font: { size: 11, color: css('--body-text-color-subdued') } })),
    yaxis: { ...axis, type: PANELS[key].always || (logY && PANELS[key].log) ? 'log' : 'linear', exponentformat: 'power' },
  };
}
function last(key, source) { // the last values of a panel in words
  const panel = PANELS[key], parts = [];
  for (const metric of linesOf(key, source)) {
    const [x, y] = held.get(source).curves[metric];
    parts.push([label(metric), short(panel.map ? panel.map(y.at(-1)) : y.at(-1)), `at step ${x.at(-1)}`, metric]);
  }
  return parts;
}
async function draw() {
  if (!window.Plotly) { stale = true; return; }
  for (const key of Object.keys(PANELS)) {
    let card = grid.querySelector(`[data-panel="${key}"]`);
    const chip = chips.querySelector(`[data-panel="${key}"]`);
    chip.hidden = !shows(key);
    if (!open.has(key) || chip.hidden) { if (card) { Plotly.purge(card.querySelector('.lab-plot')); card.remove(); } continue; }
    if (!card) {
      card = make('figure', { class: 'lab-panel', 'data-panel': key },
        make('figcaption', {}, make('span', { class: 'lab-panel-title' }, PANELS[key].title), make('span', { class: 'lab-panel-unit' }, PANELS[key].unit), make('span', { class: 'lab-panel-last' })),
        make('div', { class: 'lab-plot', role: 'group' }));
      const order = Object.keys(PANELS), next = [...grid.children].find((c) => order.indexOf(c.dataset.panel) > order.indexOf(key));
      grid.insertBefore(card, next ?? null);
    }
    const words = sources.flatMap((source) => last(key, source).map((part) => (sources.length > 1 ? [source.split(':')[1], ...part.slice(0, 3)] : part.slice(0, 3)).filter(Boolean).join(' ')));
    const plot = card.querySelector('.lab-plot');
    const marked = key === 'loss' && sources.length === 1 ? held.get(sources[0]) : {};
    if (marked?.best) words.push(`best so far ${short(marked.best[1])} at step ${marked.best[0]}`);
    if (marked?.early !== undefined) words.push(`stopped early at step ${marked.early}`);
    plot.setAttribute('aria-label', `${PANELS[key].title}: ${words.join('; ') || 'no values yet'}`);
    card.querySelector('.lab-panel-unit').textContent = unit(key);
    const now = card.querySelector('.lab-panel-last');
    now.replaceChildren(...(sources.length === 1 ? last(key, sources[0]) : []).map(([name, value, , metric]) => {
      const dot = make('i', { class: EVALUATED.has(metric) ? 'lab-dash' : 'lab-line' });
      dot.style.color = colour(0, metric);
      return make('span', {}, dot, `${name ? name + ' ' : ''}${value}`);
    }));
    await Plotly.react(plot, traces(key), layout(key), { displaylogo: false, responsive: true, modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d', 'toImage'] });
    if (plot._context?._baseUrl) { // clip paths named by the address of that moment would be lost when the address bar changes
      plot._context._baseUrl = '';
      for (const node of plot.querySelectorAll('[clip-path]')) node.setAttribute('clip-path', node.getAttribute('clip-path').replace(/url\(['"]?[^#]*#/, "url('#"));
    }
  }
  legend.replaceChildren(...(sources.length < 2 ? [] : sources.map((source, index) => {
    const dot = make('i', { class: 'lab-line' });
    dot.style.color = css(COLOURS[index]);
    return make('span', { translate: 'no' }, dot, source.split(':')[1]);
  })), ...(sources.length < 2 ? [] : [make('span', { class: 'lab-panel-unit' }, 'solid: training, dashed with marks: validation')]));
}
function fillTable() {
  const all = { loss: 'Training loss', val_loss: 'Validation loss', perplexity: 'Perplexity', bits_per_byte: 'Bits per byte', accuracy: 'Accuracy', val_accuracy: 'Validation accuracy', reward_chosen: 'Reward, chosen',
    reward_rejected: 'Reward, rejected', reward_margin: 'Margin', val_reward_margin: 'Validation margin', reward_accuracy: 'Right order', val_reward_accuracy: 'Validation right order', old_loss: 'Old text', learning_rate: 'Learning rate', grad_norm: 'Gradient norm', tokens_per_second: 'Tokens/s' };
  const has = (metric) => sources.some((source) => held.get(source)?.curves[metric]) || (metric === 'perplexity' && shows('perplexity'));
  const named = Object.keys(all).filter(has), head = ['Run', 'Step', ...named.map((metric) => all[metric])];
  const body = make('tbody');
  for (const source of sources) {
    const have = held.get(source) ?? { curves: {} };
    const at = (metric) => { const [x, y] = have.curves[metric] ?? [[], []]; return new Map(x.map((s, i) => [s, y[i]])); };
    const columns = Object.fromEntries(Object.keys(all).map((metric) => [metric, at(metric)]));
    if (have.perToken !== false) columns.perplexity = new Map([...columns.val_loss].map(([step, value]) => [step, Math.exp(value)]));
    const steps = [...new Set(Object.values(columns).flatMap((c) => [...c.keys()]))].sort((a, b) => b - a).slice(0, MOST);
    for (const step of steps) {
      const cells = [source.split(':')[1], step, ...named.map((metric) => short(columns[metric].get(step)))];
      body.append(make('tr', {}, ...cells.map((c, i) => make('td', { class: i ? 'num' : '' }, String(c)))));
    }
  }
  rows.replaceChildren(make('table', { class: 'lab-table' }, make('thead', {}, make('tr', {}, ...head.map((h, i) => make('th', { class: i ? 'num' : '' }, h)))), body));
}
async function savePictures() {
  for (const card of grid.children) {
    const { data, layout: drawn } = card.querySelector('.lab-plot');
    const names = { ...drawn, showlegend: true, legend: { orientation: 'h', y: 1.12 }, title: undefined, margin: { l: 70, r: 20, t: 70, b: 60 }, paper_bgcolor: css('--background-fill-primary'),
      yaxis: { ...drawn.yaxis, title: { text: PANELS[card.dataset.panel].title } } };
    const picture = await Plotly.toImage({ data, layout: names }, { format: 'png', width: 1000, height: 600, scale: 2 });
    save(`${stem()}-${card.dataset.panel}.png`, picture);
  }
}
async function saveTable() {
  const { csv, error } = await server.lab_csv(sources);
  if (error) { rows.replaceChildren(make('p', {}, error)); return; }
  const url = URL.createObjectURL(new Blob([csv], { type: 'text/csv' }));
  save(`${stem()}.csv`, url);
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

watch('value', choose);
const theme = new MutationObserver(() => draw());
theme.observe(document.body, { attributes: true, attributeFilter: ['class'] });
const clock = setInterval(tick, 1000);
choose();
for (const pause of [100, 250, 500]) setTimeout(tick, pause); // plotly.js arrives a moment after the page
