// The board of the Attention tab. `props.value` says what the controls say (JSON); `server` asks Python for the numbers;
// everything drawn here is one of those numbers. Foreign text goes in through textContent or a canvas only.
const root = element.querySelector('.att');

// --- small tools ---------------------------------------------------------------------------------------------------
const h = (tag, attributes = {}, ...children) => {
  const [name, ...classes] = tag.split('.');
  const node = document.createElement(name || 'div');
  if (classes.length) node.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
};
const fill = (node, ...children) => node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
const svg = (tag, attributes = {}, ...children) => {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(key, value);
  node.append(...children.flat().filter(Boolean));
  return node;
};
// Our own formulas: letters, <sub>, <sup>, <b>, <i> only. Numbers are put in, foreign text never.
const formula = (html, tag = 'p.att-formula') => { const node = h(tag); node.innerHTML = html; return node; };
const unpack = (value) => {
  if (Array.isArray(value)) return value.map(unpack);
  if (!value || typeof value !== 'object') return value;
  if (typeof value.b64 === 'string' && value.shape) {
    const bytes = Uint8Array.from(atob(value.b64), (c) => c.charCodeAt(0));
    const array = value.type === 'uint8' ? bytes : new Float32Array(bytes.buffer);
    array.shape = value.shape;
    return array;
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item)]));
};
const minus = (text) => text.replace('-', '−');
const fixed = (x, digits = 4) => (x === null || x === undefined || Number.isNaN(x) ? '–' : !Number.isFinite(x) ? (x > 0 ? '∞' : '−∞') : minus(x.toFixed(digits)));
const short = (x) => (x !== 0 && Math.abs(x) < 0.001 ? minus(x.toExponential(1)) : fixed(x, Math.abs(x) >= 100 ? 1 : Math.abs(x) >= 10 ? 2 : 3));
const trimmed = (x) => (short(x).includes('.') && !short(x).includes('e') ? short(x).replace(/\.?0+$/, '') : short(x));
const percent = (p) => (p >= 0.9995 ? '100' : p >= 0.0995 ? (100 * p).toFixed(1) : (100 * p).toFixed(2)) + ' %';
const ordinal = (n) => `${n}${(n % 100 > 10 && n % 100 < 14 ? null : ['th', 'st', 'nd', 'rd'][n % 10]) ?? 'th'}`;
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const css = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
const mono = () => css('--font-mono') || 'monospace';

const scale = (stops) => {
  const table = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), part = at - low;
    for (let c = 0; c < 3; c++) table[3 * i + c] = Math.round(stops[low][c] * (1 - part) + stops[low + 1][c] * part);
  }
  return table;
};
const VIRIDIS = scale([[68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140], [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37]]);
const RDBU = scale([[103, 0, 31], [178, 24, 43], [214, 96, 77], [244, 165, 130], [253, 219, 199], [247, 247, 247], [209, 229, 240], [146, 197, 222], [67, 147, 195], [33, 102, 172], [5, 48, 97]]);
// A value's place on a scale: weights 0..top on Viridis, signed numbers -top..top on red-blue.
const placeOf = (x, top, signed) => clamp(Math.round(255 * (signed ? 0.5 + x / (2 * top || 1) : x / (top || 1))), 0, 255);
const colourOf = (x, top, signed) => { const t = signed ? RDBU : VIRIDIS, i = 3 * placeOf(x, top, signed); return [t[i], t[i + 1], t[i + 2]]; };
const inkOn = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? '#111' : '#fff');

// Values (rows x columns) as a canvas of one pixel a cell; `gap(r, c)` leaves a cell empty.
const pixels = (values, rows, columns, top, signed, gap, offset = 0) => {
  const canvas = document.createElement('canvas');
  canvas.width = columns; canvas.height = rows;
  const image = new ImageData(columns, rows), table = signed ? RDBU : VIRIDIS;
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    if (gap && gap(r, c)) continue;
    const at = r * columns + c, i = 3 * placeOf(values[offset + at], top, signed);
    image.data.set([table[i], table[i + 1], table[i + 2], 255], 4 * at);
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
};
const sized = (canvas, width, height) => {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  context.imageSmoothingEnabled = false;
  return context;
};
const legend = (top, signed, unit = '') => {
  const bar = h('span.att-ramp', { 'aria-hidden': 'true' });
  const table = signed ? RDBU : VIRIDIS;
  bar.style.background = `linear-gradient(90deg, ${Array.from({ length: 11 }, (_, i) => { const at = 3 * Math.round(i * 25.5); return `rgb(${table[at]},${table[at + 1]},${table[at + 2]})`; }).join(',')})`;
  return h('span.att-legend', {}, h('span', {}, signed ? `−${trimmed(top)}` : '0'), bar, h('span', {}, trimmed(top) + unit));
};

// Horizontal bars: [{name, value, note, second}], values from 0 to `top`, or from -top to top when `signed`.
const bars = (rows, { top, signed = false, foreign = false, format = short, title = '' } = {}) => {
  const most = top ?? (Math.max(...rows.map((row) => Math.max(Math.abs(row.value), Math.abs(row.second ?? 0)))) || 1);
  return h('div.att-bars', { role: 'table', 'aria-label': title }, rows.map((row) => {
    const bar = (value, kind) => {
      const share = clamp(Math.abs(value) / most, 0, 1) * (signed ? 50 : 100);
      const fill = h(`span.att-fill.${kind}`);
      fill.style.width = `${share}%`;
      fill.style.marginLeft = signed ? `${value < 0 ? 50 - share : 50}%` : 0;
      if (signed && value < 0) fill.classList.add('att-negative');
      return fill;
    };
    return h('div.att-bar', { role: 'row' },
      h('span.att-name', { role: 'cell', title: row.name, translate: foreign ? 'no' : null }, row.name),
      h('span.att-track', { 'aria-hidden': 'true' }, bar(row.value, 'att-first'), row.second === undefined ? null : bar(row.second, 'att-second')),
      h('span.att-value', { role: 'cell' }, row.text ?? format(row.value)));
  }));
};

// Lines over a common x: series [{name, y, colour, dash, x}]; `marks` are vertical lines [{x, text}].
const lines = (series, { width = root.clientWidth < 640 ? 340 : 460, height = 210, x = null, xTitle = '', yTitle = '', marks = [], points = null, zero = false, label = '' } = {}) => {
  const left = 46, right = 10, above = 12, below = 36;
  const xs = (s) => s.x ?? x ?? Array.from(s.y, (_, i) => i);
  const all = series.flatMap((s) => Array.from(s.y)).concat(points ? Array.from(points.y) : []).filter(Number.isFinite);
  const allX = series.flatMap((s) => Array.from(xs(s)));
  let low = Math.min(...all, zero ? 0 : Infinity), high = Math.max(...all, zero ? 0 : -Infinity);
  if (high - low < 1e-9) { high += 0.5; low -= 0.5; }
  const x0 = Math.min(...allX), x1 = Math.max(...allX) || 1;
  const X = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - right), Y = (v) => above + (1 - (v - low) / (high - low)) * (height - above - below);
  const ticks = (a, b, n) => { const rough = (b - a) / n, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find((s) => s * power >= rough) * power; const found = []; for (let v = Math.ceil(a / step) * step; v <= b + 1e-9; v += step) found.push(Math.abs(v) < step / 1e6 ? 0 : v); return found; };
  const spelled = (v) => minus(String(+v.toPrecision(6)));
  return svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'att-chart', role: 'img', 'aria-label': label || series.map((s) => s.name).join(', ') },
    ticks(low, high, 4).map((v) => svg('g', {}, svg('line', { x1: left, x2: width - right, y1: Y(v), y2: Y(v), class: 'att-grid' }), svg('text', { x: left - 6, y: Y(v) + 4, 'text-anchor': 'end' }, spelled(v)))),
    ticks(x0, x1, 6).filter((v) => Number.isInteger(v) || x1 - x0 < 6).map((v) => svg('text', { x: X(v), y: height - below + 16, 'text-anchor': 'middle' }, spelled(v))),
    low < 0 && high > 0 ? svg('line', { x1: left, x2: width - right, y1: Y(0), y2: Y(0), class: 'att-zero' }) : null,
    marks.map((m) => svg('g', {}, svg('line', { x1: X(m.x), x2: X(m.x), y1: above, y2: height - below, class: 'att-mark' }), m.text ? svg('text', { x: X(m.x) + (m.left ? -5 : 5), y: above + (m.low ? 24 : 10), 'text-anchor': m.left ? 'end' : 'start', class: 'att-marktext' }, m.text) : null)),
    series.map((s) => svg('path', { d: Array.from(s.y, (v, i) => (Number.isFinite(v) ? `${i && Number.isFinite(s.y[i - 1]) ? 'L' : 'M'}${X(xs(s)[i]).toFixed(1)},${Y(v).toFixed(1)}` : '')).join(''), fill: 'none', 'stroke-width': s.wide ?? 2, 'stroke-dasharray': s.dash, style: `stroke: ${s.colour}` })),
    points ? Array.from(points.x, (v, i) => svg('circle', { cx: X(v).toFixed(1), cy: Y(points.y[i]).toFixed(1), r: 2.2, class: 'att-point' })) : null,
    svg('text', { x: (left + width - right) / 2, y: height - 4, 'text-anchor': 'middle', class: 'att-axis' }, xTitle),
    yTitle ? svg('text', { x: 12, y: (above + height - below) / 2, 'text-anchor': 'middle', class: 'att-axis', transform: `rotate(-90 12 ${(above + height - below) / 2})` }, yTitle) : null);
};
const keys = (series) => h('div.att-keys', {}, series.map((s) => { const line = h('i'); line.style.borderTop = `2px ${s.dash ? 'dashed' : 'solid'} ${s.colour}`; return h('span', {}, line, s.name); }));

// A vector as a row of coloured cells, with its numbers on hover.
const strip = (values, top, { signed = true, height = 22, name = '' } = {}) => {
  const canvas = h('canvas.att-strip', { role: 'img', 'aria-label': `${name}: ${values.length} numbers from ${short(Math.min(...values))} to ${short(Math.max(...values))}` });
  canvas.width = values.length; canvas.height = 1;
  canvas.getContext('2d').drawImage(pixels(values, 1, values.length, top, signed), 0, 0);
  canvas.style.height = `${height}px`;
  canvas.addEventListener('mousemove', (event) => {
    const i = clamp(Math.floor((event.offsetX / canvas.clientWidth) * values.length), 0, values.length - 1);
    canvas.title = `${name} [${i}] = ${fixed(values[i])}`;
  });
  return canvas;
};
const most = (...arrays) => Math.max(...arrays.map((a) => Math.max(...Array.from(a, Math.abs)))) || 1;

// --- state ---------------------------------------------------------------------------------------------------------
const state = { controls: null, layer: 0, head: 0, row: -1, column: -1, stage: 'weights', muted: [], data: null, hover: null, asked: 0 };
// What scores are divided by: the root of the head size, or of a number of the model's own.
const rootOf = (d) => d.config.score_size || d.head_dim;
const STAGES = {
  scores: { title: 'q · k', signed: true, formula: () => 'S = Q K<sup>T</sup>', say: (d) => `One product for each pair: how well what a token looks for (q) fits what another one offers (k).${d.config.qk_norm === 'none' ? '' : ` q and k went through an RMSNorm of their own first${d.config.qk_norm === 'head' ? ', each head by itself' : ', all heads at once'}.`}${d.triangle ? ' Of a text this long the future is not shown.' : ''}` },
  scaled: { title: 'Scaled', signed: true, formula: (d) => (d.config.score_size ? `S / √${trimmed(d.config.score_size)} = S / ${fixed(d.divisor, 3)}` : `S / √D = S / √${d.head_dim} = S / ${fixed(d.divisor, 3)}`), say: (d) => (d.config.score_size ? `This model divides by √${trimmed(d.config.score_size)}, a number of its own; its head size is D = ${d.head_dim}.` : `D = ${d.head_dim} is the size of this head, not the model’s width ${d.config.n_embd}.`) },
  masked: { title: 'Masked', signed: true, formula: () => (span() ? `j &gt; i or i − j ≥ ${span()}: −∞` : 'j &gt; i: −∞'), say: () => (span() ? `A token may look at itself and at the ${span() - 1} before it: this layer has a sliding window. The future, and what lies farther back, is a gap here: its weight will be exactly 0.` : 'A token may look at itself and back. The future is a gap here: its weight will be exactly 0.') },
  weights: { title: 'Softmax', signed: false, formula: () => (span() ? `w<sub>ij</sub> = e<sup>s<sub>ij</sub></sup> / Σ<sub>i−${span()}&lt;k≤i</sub> e<sup>s<sub>ik</sub></sup>` : 'w<sub>ij</sub> = e<sup>s<sub>ij</sub></sup> / Σ<sub>k≤i</sub> e<sup>s<sub>ik</sub></sup>'), say: () => 'Each row becomes shares that sum to 1.' },
  dropped: { title: 'Dropout', signed: false, formula: (d) => (d.dropout ? `kept: w / (1 − p) = w / ${fixed(1 - d.dropout, 2)}; dropped: 0` : 'p = 0: unchanged'), say: (d) => (d.dropout ? `${d.zeroed} of ${d.seen} weights were dropped; the others grew ${fixed(1 / (1 - d.dropout), 3)} times.` : 'Only in training. Turn on “Training mode” under “Dropout and special tokens” to see it.') },
};
const tokens = () => state.data.tokens;
const T = () => tokens().length;
const nameOf = (i) => `‘${tokens()[i][1]}’`;
const valuesOf = (stage) => state.data.stages[stage === 'masked' ? 'scaled' : stage] ?? state.data.stages.weights;
const topOf = (stage) => (stage === 'weights' || (stage === 'dropped' && !state.data.dropout) ? 1 : state.data.largest[stage === 'masked' ? 'scaled' : stage]);
// Tokens that a token of the layer on screen sees, itself included; 0: all before it. The stages belong to the layer they came with.
const span = (layer = state.data.layer) => state.data.windows[layer];
// A model broken on purpose has no causal mask: each token sees what follows it, too.
const causal = () => state.data.config.causal !== false;
const isHidden = (r, c) => (causal() && c > r) || (span() > 0 && Math.abs(r - c) >= span());
const isGap = (stage, r, c) => (stage === 'scores' || stage === 'scaled' ? state.data.triangle && c > r : isHidden(r, c));

// Of a long text the scores come up to the diagonal only; the steps after them are taken here, as llm.model takes them.
function whole(data) {
  if (!data.triangle) return data;
  const n = data.tokens.length, reach = data.windows[data.layer], packed = data.stages, stages = {};
  const square = (values) => { const full = new Float32Array(n * n); for (let r = 0, at = 0; r < n; r++) { full.set(values.subarray(at, at + r + 1), r * n); at += r + 1; } return full; };
  for (const name of Object.keys(packed)) stages[name] = square(packed[name]);
  stages.scaled = stages.scores.map((x) => x / data.divisor);
  stages.weights = new Float32Array(n * n);
  for (let r = 0; r < n; r++) {
    const first = reach ? Math.max(0, r - reach + 1) : 0;
    let largest = -Infinity, sum = 0;
    for (let c = first; c <= r; c++) largest = Math.max(largest, stages.scaled[r * n + c]);
    for (let c = first; c <= r; c++) sum += Math.exp(stages.scaled[r * n + c] - largest);
    for (let c = first; c <= r; c++) stages.weights[r * n + c] = Math.exp(stages.scaled[r * n + c] - largest) / sum;
  }
  return { ...data, stages };
}

// --- the skeleton --------------------------------------------------------------------------------------------------
const slot = {};
const code = (name) => {
  const place = h('pre.att-source', { tabindex: 0 });
  return h('details.att-code', { ontoggle: async (event) => {
    if (!event.target.open || place.textContent) return;
    const wanted = typeof name === 'function' ? name() : name;
    const found = await server.code(wanted);
    place.textContent = found.error ?? found.code;
    if (found.where) event.target.querySelector('summary').textContent = `Show the code · ${found.where}`;
  } }, h('summary', {}, 'Show the code'), place);
};
const card = (id, title, sentence, ...children) => h('section.att-card', { id: `attention-${id}`, 'aria-label': title }, h('header', {}, h('h3', {}, title), sentence ? h('p', {}, sentence) : null), ...children);
const place = (name, tag = 'div') => (slot[name] = h(`${tag}.att-${name}`));
const step = (what, by, sign, label) => h('button.att-step', { type: 'button', 'aria-label': label, onclick: () => move(what === 'layer' ? by : 0, what === 'head' ? by : 0) }, sign);

const bar = h('nav.att-bar', { 'aria-label': 'Layer and head' },
  h('div.att-steppers', {},
    h('span.att-stepper', {}, step('layer', -1, '‹', 'Layer before'), (slot.layer = h('b', { id: 'attention-layer' })), step('layer', 1, '›', 'Next layer')),
    h('span.att-stepper', {}, step('head', -1, '‹', 'Head before'), (slot.head = h('b', { id: 'attention-head' })), step('head', 1, '›', 'Next head')),
    (slot.mute = h('button.att-mute', { type: 'button', id: 'attention-mute', 'aria-pressed': 'false', onclick: () => mute() }, 'Mute this head'))),
  h('div.att-jumps', {}, [['heads', 'Heads'], ['stages', 'Steps'], ['cell', 'One cell'], ['next', 'Next token'], ['lens', 'Lens'], ['block', 'Block'], ['positions', 'Positions']].map(([id, title]) =>
    h('button', { type: 'button', onclick: () => root.querySelector(`#attention-${id}`).scrollIntoView({ behavior: 'smooth', block: 'start' }) }, title))));

slot.grid = h('canvas', { id: 'attention-grid', tabindex: 0, role: 'img' });
slot.large = h('canvas', { id: 'attention-large', tabindex: 0, role: 'img' });
slot.cursor = h('canvas.att-cursor', { 'aria-hidden': 'true' });
slot.picker = h('div.att-picker', { role: 'group', 'aria-label': 'Step shown large' });
fill(root, 
  (slot.message = h('div.att-message', { role: 'alert', hidden: true })),
  (slot.facts = h('p.att-facts', { id: 'attention-facts' })),
  bar,
  h('div.att-top', { id: 'attention-heads' },
    h('section.att-card', { 'aria-label': 'All heads' },
      h('header', {}, h('h3', {}, 'All heads'), h('p', {}, 'Down: layers. Across: heads. Click one, or use the arrow keys. The strip under each is how widely its rows look (entropy).')),
      h('div.att-scroll.att-heads', {}, slot.grid), (slot.gridnote = h('p.att-note', { id: 'attention-gridnote' })), (slot.gridlegend = h('p.att-note')),
      formula('entropy of a row: H<sub>i</sub> = −Σ<sub>j</sub> w<sub>ij</sub> log<sub>2</sub> w<sub>ij</sub> bits'), code('heads')),
    h('section.att-card', { 'aria-label': 'One head' },
      h('header', {}, (slot.title = h('h3', { id: 'attention-title' })), slot.picker),
      (slot.readout = h('p.att-readout', { id: 'attention-readout', 'aria-live': 'polite' })),
      h('div.att-scroll.att-square-scroll', {}, h('div.att-stack', {}, slot.large, slot.cursor)), (slot.largelegend = h('p.att-note')),
      (slot.looks = h('div.att-looks', { id: 'attention-looks' })))),
  card('stages', 'This head in steps', 'The numbers between q · k and the weights that mix the values. Click a picture to see it large; each has its own scale.', place('stages'), place('why')),
  h('div.att-duo', {},
    card('cell', 'One cell, every number', 'Click any cell above. Here is how its weight was made.', place('cell'), code('cell')),
    card('next', 'Next token', 'What the model expects after the last token of the text.', formula('p<sub>i</sub> = e<sup>logit<sub>i</sub></sup> / Σ<sub>k</sub> e<sup>logit<sub>k</sub></sup>'), place('next'), code('next'))),
  card('lens', 'Logit lens', 'What each layer would answer if the model ended there. Click a column to choose a token.', place('lens')),
  card('block', 'The rest of the block', 'Norm, output projection, MLP and the residual stream, at the chosen token.', place('block')),
  card('positions', 'Positions', 'How this model knows where a token stands, and what happens beyond the lengths it was trained on.', place('positions')));

// --- asking --------------------------------------------------------------------------------------------------------
const say = (text) => { slot.message.textContent = text; slot.message.hidden = !text; };
const request = (more = {}) => ({ ...state.controls, layer: state.layer, head: state.head, muted: state.muted, ...more });
const seen = { lens: false, block: false, positions: false };
const fresh = { lens: false, block: false, positions: null, cell: 0 };

async function look(reset) {
  const mine = ++state.asked, pictured = JSON.stringify([state.controls, state.muted]); // what the small maps depend on
  root.classList.add('att-busy');
  let data;
  try { data = await server.look(request({ maps: pictured !== state.pictured })); } catch (error) { data = { error: 'The lab does not answer. Is it still running?' }; }
  if (mine !== state.asked) return;
  root.classList.remove('att-busy');
  if (data.error) {
    if (reset && (state.layer || state.head)) { state.layer = state.head = 0; return look(false); }
    return say(data.error);
  }
  say(data.cut);
  const old = state.data;
  state.data = whole(unpack(data));
  if (data.maps) { state.pictured = pictured; state.maps = null; } else Object.assign(state.data, { maps: old.maps, entropy: old.entropy, strip: old.strip });
  const last = T() - 1;
  if (reset || state.row > last || state.column > last) { state.row = last; state.column = -1; }
  if (state.column < 0) state.column = widest(state.row);
  fresh.lens = fresh.block = false;
  draw();
  remember();
  cell();
  later();
}
const widest = (row) => { const w = state.data.stages.weights; let best = 0; for (let c = 1; c <= (causal() ? row : T() - 1); c++) if (w[row * T() + c] > w[row * T() + best]) best = c; return best; };
const remember = () => { window.lab?.keep('attention.layer', state.layer, 0); window.lab?.keep('attention.head', state.head, 0); };

async function part(name, ask, drawn) {
  const mine = state.asked, at = `${state.layer}/${state.row}`;
  const found = await ask();
  if (mine !== state.asked || (name !== 'positions' && at !== `${state.layer}/${state.row}`)) return;
  if (found.error) fill(slot[name], h('p.att-note', {}, found.error));
  else drawn(unpack(found));
}
function later() {
  if (!state.data) return;
  if (seen.lens && !fresh.lens) { fresh.lens = true; part('lens', () => server.lens(request({ position: state.row })), drawLens); }
  if (seen.block && !fresh.block) { fresh.block = true; part('block', () => server.block(request({ position: state.row })), drawBlock); }
  if (seen.positions && fresh.positions !== state.controls.model) { fresh.positions = state.controls.model; part('positions', () => server.positions(request()), (found) => { state.positions = { ...found, model: state.controls.model }; drawPositions(); }); }
}
async function cell() {
  const mine = ++fresh.cell;
  const found = await server.cell(request({ row: state.row, column: state.column }));
  if (mine !== fresh.cell) return;
  if (found.error) fill(slot.cell, h('p.att-note', {}, found.error)); else drawCell(found);
}

function move(layers, heads) {
  if (!state.data) return;
  const { n_layer, n_head } = state.data.config;
  const layer = clamp(state.layer + layers, 0, n_layer - 1), head = clamp(state.head + heads, 0, n_head - 1);
  if (layer === state.layer && head === state.head) return;
  go(layer, head);
}
function go(layer, head) {
  state.layer = layer; state.head = head; state.column = -1;
  drawBar(); drawGrid();
  look(false);
}
function choose(row, column) {
  const moved = row !== state.row;
  state.row = row; state.column = column ?? widest(row);
  drawCursor(); drawLooks(); drawReadout(); drawStages();
  const box = slot.large.closest('.att-scroll'), x = large.left + state.column * large.cell, y = large.top + state.row * large.cell; // a long text's picture scrolls
  if (x < box.scrollLeft || x + large.cell > box.scrollLeft + box.clientWidth) box.scrollLeft = x - box.clientWidth / 2;
  if (y < box.scrollTop || y + large.cell > box.scrollTop + box.clientHeight) box.scrollTop = y - box.clientHeight / 2;
  cell();
  if (moved) { fresh.lens = fresh.block = false; if (state.positions) drawPositions(); later(); }
}
function mute() {
  const at = state.muted.findIndex(([l, n]) => l === state.layer && n === state.head);
  if (at < 0) state.muted.push([state.layer, state.head]); else state.muted.splice(at, 1);
  drawBar();
  look(false);
}

// --- drawing: heads ------------------------------------------------------------------------------------------------
function draw() {
  const { data } = state, { config } = data;
  const groups = data.kv_heads === config.n_head ? '' : ` sharing ${data.kv_heads === 1 ? 'one key and value' : `${data.kv_heads} keys and values`}`;
  const facts = [`${state.controls.model}: ${config.n_layer} layers of ${config.n_head} heads${groups}, head size ${data.head_dim}, width ${config.n_embd}; ${T().toLocaleString('en')} tokens of at most ${config.context_length.toLocaleString('en')}.`];
  const sliding = data.windows.filter(Boolean).length;
  if (sliding) facts.push(sliding === config.n_layer ? `A token sees ${config.sliding_window.toLocaleString('en')} tokens back, itself included (sliding window).` : `Sliding windows: a token sees ${config.sliding_window.toLocaleString('en')} tokens back, itself included; every ${ordinal(config.global_every)} layer sees all.`);
  if (data.begins) facts.push(`${data.begins} stands in front: this model’s texts begin with it.`);
  slot.facts.textContent = facts.join(' ');
  words = null;
  drawBar(); drawGrid(); drawLarge(); drawLooks(); drawReadout(); drawStages(); drawNext(); drawPositions();
}
function drawBar() {
  const { n_layer, n_head } = state.data.config;
  fill(slot.layer, `Layer ${state.layer}`, h('small', {}, n_layer > 1 ? `of 0–${n_layer - 1}` : 'only one'));
  fill(slot.head, `Head ${state.head}`, h('small', {}, n_head > 1 ? `of 0–${n_head - 1}` : 'only one'));
  const isMuted = state.muted.some(([l, n]) => l === state.layer && n === state.head);
  slot.mute.setAttribute('aria-pressed', isMuted);
  slot.mute.textContent = isMuted ? 'Head muted' : 'Mute this head';
  slot.title.textContent = `Layer ${state.layer}, head ${state.head}${span(state.layer) ? ` · window of ${span(state.layer)}` : ''}`;
}

const grid = { left: 22, top: 18, gap: 7, size: 60, strip: 5 };
const pitches = () => { const pitch = grid.size + grid.gap; return [pitch, pitch + grid.strip + 2]; };
function drawGrid() {
  const { maps, strip } = state.data, [L, H, S] = maps.shape, box = slot.grid.closest('.att-scroll'), room = box.clientWidth, n = T();
  if (!room) return;
  Object.assign(grid, L * H > 100 ? { gap: 4, strip: 4 } : { gap: 7, strip: 5 });
  grid.size = clamp(Math.floor((room - grid.left - (L > 12 ? 12 : 0)) / H - grid.gap), 26, 110);
  const [pitch, down] = pitches(), width = grid.left + H * pitch, height = grid.top + L * down, each = Math.ceil(n / S), parts = strip.shape[2];
  // a square is empty where nothing in it is seen: in the future, or before the window of that layer
  const unseen = (layer) => { const reach = span(layer); return (r, c) => (causal() && c > r) || (reach > 0 && (Math.abs(r - c) - 1) * each + 1 >= reach); };
  if (!state.maps) state.maps = Array.from({ length: L * H }, (_, i) => pixels(maps, S, S, 255, false, unseen(Math.floor(i / H)), i * S * S));
  const context = sized(slot.grid, width, height);
  const ink = css('--body-text-color-subdued'), accent = css('--color-accent');
  context.font = `11px ${css('--font') || 'sans-serif'}`; context.fillStyle = ink;
  context.textAlign = 'center';
  for (let n = 0; n < H; n++) context.fillText(n, grid.left + n * pitch + grid.size / 2, 11);
  for (let l = 0; l < L; l++) {
    context.fillStyle = ink; context.textAlign = 'left';
    context.fillText(l, 4, grid.top + l * down + grid.size / 2 + 4);
    for (let k = 0; k < H; k++) {
      const x = grid.left + k * pitch, y = grid.top + l * down;
      context.fillStyle = css('--background-fill-secondary');
      context.fillRect(x, y, grid.size, grid.size);
      context.drawImage(state.maps[l * H + k], x, y, grid.size, grid.size);
      // entropy of the rows as a share of the most it can be there: log2 of the tokens that are seen
      context.fillStyle = accent;
      for (let i = 0; i < parts; i++) {
        context.globalAlpha = 0.08 + 0.92 * (strip[(l * H + k) * parts + i] / 255);
        context.fillRect(x + (i / parts) * grid.size, y + grid.size + 2, Math.max(grid.size / parts, 0.5), grid.strip - 1);
      }
      context.globalAlpha = 1;
      if (state.muted.some(([a, b]) => a === l && b === k)) {
        context.strokeStyle = css('--lab-val'); context.lineWidth = 2; context.beginPath();
        context.moveTo(x + 3, y + 3); context.lineTo(x + grid.size - 3, y + grid.size - 3);
        context.moveTo(x + grid.size - 3, y + 3); context.lineTo(x + 3, y + grid.size - 3); context.stroke();
      }
      if (l === state.layer && k === state.head) { context.strokeStyle = css('--lab-val'); context.lineWidth = 2.5; context.strokeRect(x - 2, y - 2, grid.size + 4, grid.size + grid.strip + 5); }
    }
  }
  slot.grid.setAttribute('aria-label', `Attention of ${L} layers of ${H} heads; layer ${state.layer}, head ${state.head} is chosen. Arrow keys move.`);
  fill(slot.gridlegend, 'weight ', legend(1, false), S < n ? ` each dot is the largest weight of ${Math.ceil(n / S)} × ${Math.ceil(n / S)} cells` : '');
  gridNote(state.layer, state.head);
  const y = grid.top + state.layer * down, x = grid.left + state.head * pitch; // the chosen one stays in view
  if (y < box.scrollTop || y + down > box.scrollTop + box.clientHeight) box.scrollTop = y - (box.clientHeight - down) / 2;
  if (x < box.scrollLeft || x + pitch > box.scrollLeft + box.clientWidth) box.scrollLeft = x - (box.clientWidth - pitch) / 2;
}
function gridNote(layer, head) {
  const bits = state.data.entropy[layer * state.data.config.n_head + head];
  slot.gridnote.textContent = `Layer ${layer}, head ${head}: rows look ${fixed(bits, 2)} bits wide on average, as widely as an even look at ${fixed(2 ** bits, 1)} tokens.`;
}
function headAt(event) {
  const [L, H] = state.data.maps.shape, [pitch, down] = pitches();
  const k = Math.floor((event.offsetX - grid.left) / pitch), l = Math.floor((event.offsetY - grid.top) / down);
  return k >= 0 && k < H && l >= 0 && l < L ? [l, k] : null;
}
slot.grid.addEventListener('click', (event) => { const at = state.data && headAt(event); slot.grid.focus({ preventScroll: true }); if (at) go(...at); });
slot.grid.addEventListener('mousemove', (event) => { const at = state.data && headAt(event); slot.grid.style.cursor = at ? 'pointer' : ''; if (at) gridNote(...at); });
slot.grid.addEventListener('mouseleave', () => state.data && gridNote(state.layer, state.head));
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
root.addEventListener('keydown', (event) => {
  const by = ARROWS[event.key];
  if (!by || !state.data || event.altKey || event.ctrlKey || event.metaKey || event.target.closest('input, textarea, select, pre')) return;
  event.preventDefault();
  if (event.target === slot.large) choose(clamp(state.row + by[0], 0, T() - 1), clamp(state.column + by[1], 0, T() - 1));
  else move(...by);
});

// --- drawing: one head ---------------------------------------------------------------------------------------------
const large = { left: 0, top: 0, cell: 10 };
function drawLarge() {
  const n = T(), room = slot.large.closest('.att-scroll').clientWidth;
  if (!room) return;
  const measure = document.createElement('canvas').getContext('2d');
  measure.font = `12px ${mono()}`;
  const longest = clamp(Math.max(...tokens().map(([, name]) => measure.measureText(name).width)), 14, 96);
  large.left = Math.ceil(longest + 14); large.top = Math.ceil(longest * 0.9 + 14);
  large.cell = clamp(Math.min(room - large.left - 4, 640 - large.top) / n, 1, 46);
  if (large.cell > 3) large.cell = Math.floor(large.cell);
  const side = large.cell * n, width = large.left + side + 4, height = large.top + side + 4;
  const stage = state.stage, values = valuesOf(stage), top = topOf(stage), { signed } = STAGES[stage];
  const context = sized(slot.large, width, height);
  Object.assign(slot.large.dataset, { left: large.left, top: large.top, cell: large.cell }); // where its cells lie
  context.fillStyle = css('--background-fill-secondary');
  context.fillRect(large.left, large.top, side, side);
  context.drawImage(pixels(values, n, n, top, signed, (r, c) => isGap(stage, r, c)), large.left, large.top, side, side);
  const each = Math.ceil(11 / large.cell);
  context.font = `${clamp(large.cell - 1, 10, 12.5)}px ${mono()}`; context.fillStyle = css('--body-text-color'); context.textBaseline = 'middle';
  const clipped = (name) => { let text = name; while (text.length > 1 && context.measureText(text).width > longest) text = text.slice(0, -2) + '…'; return text; };
  for (let i = 0; i < n; i += each) {
    const at = (i + 0.5) * large.cell;
    context.textAlign = 'right'; context.fillText(clipped(tokens()[i][1]), large.left - 7, large.top + at);
    context.save(); context.translate(large.left + at, large.top - 7); context.rotate(-Math.PI / 2); context.textAlign = 'left'; context.fillText(clipped(tokens()[i][1]), 0, 0); context.restore();
  }
  if (large.cell >= 34) {
    context.textAlign = 'center'; context.font = `11px ${css('--font') || 'sans-serif'}`;
    for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) {
      if (isGap(stage, r, c)) continue;
      const x = values[r * n + c];
      context.fillStyle = inkOn(colourOf(x, top, signed));
      context.fillText(fixed(x, Math.abs(x) >= 9.995 ? 1 : 2), large.left + (c + 0.5) * large.cell, large.top + (r + 0.5) * large.cell);
    }
  }
  fill(slot.largelegend, stage === 'dropped' && state.data.dropout ? 'weight after dropout ' : signed ? 'score ' : 'weight ', legend(top, signed), stage === 'masked' || !signed ? ' empty: masked, weight 0' : '');
  slot.large.setAttribute('aria-label', `${STAGES[stage].title} of layer ${state.layer}, head ${state.head}: ${n} by ${n}. Arrow keys move the chosen cell.`);
  fill(slot.picker, ...Object.entries(STAGES).map(([name, s]) => h('button', { type: 'button', 'aria-pressed': String(name === stage), onclick: () => { state.stage = name; drawLarge(); drawReadout(); drawStages(); } }, s.title)));
  drawCursor();
}
function drawCursor() {
  const n = T(), width = parseFloat(slot.large.style.width), height = parseFloat(slot.large.style.height);
  if (!width) return;
  const context = sized(slot.cursor, width, height), [row, column] = state.hover ?? [state.row, state.column];
  const side = large.cell * n, accent = css('--lab-val'), ink = css('--body-text-color');
  context.globalAlpha = 0.16; context.fillStyle = ink;
  context.fillRect(0, large.top + row * large.cell, large.left, large.cell); context.fillRect(large.left + column * large.cell, 0, large.cell, large.top);
  context.globalAlpha = 1;
  context.strokeStyle = accent; context.lineWidth = 2;
  context.strokeRect(large.left + state.column * large.cell - 1, large.top + state.row * large.cell - 1, large.cell + 2, large.cell + 2);
  if (state.hover) { context.strokeStyle = ink; context.lineWidth = 1; context.strokeRect(large.left + 0.5, large.top + row * large.cell + 0.5, side - 1, large.cell - 1); context.strokeRect(large.left + column * large.cell + 0.5, large.top + 0.5, large.cell - 1, side - 1); }
}
function drawReadout() {
  const [row, column] = state.hover ?? [state.row, state.column], value = valuesOf(state.stage)[row * T() + column];
  const gap = isGap(state.stage, row, column), bold = h('b', { id: 'attention-value' }, gap ? (state.stage === 'masked' ? '−∞' : '0') : fixed(value));
  fill(slot.readout, h('span.att-tok', { translate: 'no' }, tokens()[row][1]), ` (${row}) looks at `, h('span.att-tok', { translate: 'no' }, tokens()[column][1]), ` (${column}): `, `${STAGES[state.stage].title.toLowerCase()} `, bold, column > row ? ' – in its future, so its weight is 0' : isHidden(row, column) ? ` – outside the window of ${span()} tokens, so its weight is 0` : '');
}
function cellAt(event) {
  const c = Math.floor((event.offsetX - large.left) / large.cell), r = Math.floor((event.offsetY - large.top) / large.cell);
  return r >= 0 && c >= 0 && r < T() && c < T() ? [r, c] : null;
}
slot.large.addEventListener('mousemove', (event) => {
  const at = state.data && cellAt(event);
  if (String(at) === String(state.hover)) return;
  state.hover = at; drawCursor(); drawReadout();
  if (at && at[0] !== state.lookedFrom) drawLooks();
});
slot.large.addEventListener('mouseleave', () => { state.hover = null; if (state.data) { drawCursor(); drawReadout(); drawLooks(); } });
slot.large.addEventListener('click', (event) => { const at = state.data && cellAt(event); slot.large.focus({ preventScroll: true }); if (at) choose(...at); });

// The text itself: the chosen token outlined, the others as dark as it looks at them. The words are made once a text.
let words = null;
function drawLooks() {
  const row = (state.hover ?? [state.row])[0], n = T(), weights = state.data.stages.weights;
  state.lookedFrom = row;
  if (!words) {
    words = tokens().map(([, name], i) => h('button.att-word', { type: 'button', tabindex: -1, onclick: () => choose(i) }, name));
    fill(slot.looks, h('p.att-note', {}, 'What this token looks at, in the text. Click another.'), h('div.att-text', { translate: 'no' }, words));
  }
  words.forEach((node, i) => {
    const hidden = isHidden(row, i), weight = hidden ? 0 : weights[row * n + i], colour = colourOf(weight, 1, false);
    node.title = i > row ? 'later: not seen' : hidden ? `outside the window of ${span()} tokens: not seen` : `weight ${fixed(weight)}`;
    node.classList.toggle('att-unseen', hidden);
    node.classList.toggle('att-chosen', i === row);
    node.style.background = hidden ? '' : `rgba(${colour}, ${clamp(0.1 + 1.6 * weight, 0.1, 1)})`;
    node.style.color = weight > 0.3 ? inkOn(colour) : '';
  });
}

// --- drawing: the steps --------------------------------------------------------------------------------------------
const stageCanvases = {};
function drawStages() {
  const n = T(), { data } = state;
  if (!slot.stages.childElementCount) fill(slot.stages, ...Object.keys(STAGES).map((name) => {
    const parts = { canvas: h('canvas', { role: 'img', tabindex: 0, id: `attention-stage-${name}` }), formula: h('p.att-formula'), legend: h('p.att-note'), say: h('p.att-note'), value: h('p.att-figure') };
    stageCanvases[name] = parts;
    const show = () => { state.stage = name; drawLarge(); drawReadout(); drawStages(); };
    parts.canvas.addEventListener('click', show);
    parts.canvas.addEventListener('keydown', (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); show(); } });
    return h('figure.att-stage', { 'data-stage': name }, h('h4', {}, STAGES[name].title), parts.canvas, parts.legend, parts.value, parts.formula, parts.say, code(name));
  }));
  for (const [name, parts] of Object.entries(stageCanvases)) {
    const { signed } = STAGES[name], top = topOf(name), side = parts.canvas.parentElement.clientWidth;
    if (!side) continue;
    const size = Math.min(side, 240), context = sized(parts.canvas, size, size), values = valuesOf(name);
    context.fillStyle = css('--background-fill-secondary'); context.fillRect(0, 0, size, size);
    context.imageSmoothingEnabled = n > size; // more cells than dots: averaged here, exact in the large picture
    context.drawImage(pixels(values, n, n, top, signed, (r, c) => isGap(name, r, c)), 0, 0, size, size);
    const cellSize = size / n;
    context.strokeStyle = css('--lab-val'); context.lineWidth = 1.5;
    context.strokeRect(state.column * cellSize - 0.5, state.row * cellSize - 0.5, Math.max(cellSize, 3) + 1, Math.max(cellSize, 3) + 1);
    parts.canvas.setAttribute('aria-label', `${STAGES[name].title}, ${n} by ${n}, from ${signed ? '−' + short(top) : 0} to ${short(top)}`);
    fill(parts.legend, legend(top, signed));
    const gap = isGap(name, state.row, state.column);
    fill(parts.value, 'cell: ', h('b', {}, gap ? (name === 'masked' ? '−∞' : '0') : fixed(values[state.row * n + state.column])));
    parts.formula.innerHTML = STAGES[name].formula(data);
    parts.say.textContent = STAGES[name].say(data);
    parts.canvas.parentElement.classList.toggle('att-shown', name === state.stage);
  }
  const { spreads, head_dim, config } = data, own = config.score_size;
  fill(slot.why, 
    h('details', { open: true }, h('summary', {}, `Why √${trimmed(rootOf(data))}, and why 1 / (1 − p)?`),
      h('p', {}, `A score is a sum of D = ${head_dim} products, so its spread grows with √D; dividing by √D takes that back. The width ${config.n_embd} is not in the sum${config.n_embd === config.n_head * head_dim ? ` (it is shared by ${config.n_head} heads)` : ''}, though notes often say so.${own ? ` This model divides by √${trimmed(own)} all the same, as it did when it was trained.` : ''} Rows of this head on this text look`),
      bars([
        { name: 'S / 1', value: spreads.one, text: `${fixed(spreads.one, 2)} bits` },
        { name: `S / √${head_dim}`, value: spreads['head size'], text: `${fixed(spreads['head size'], 2)} bits${own ? '' : ' – the model'}` },
        { name: `S / √${config.n_embd}`, value: spreads.width, text: `${fixed(spreads.width, 2)} bits` },
        ...(own ? [{ name: `S / √${trimmed(own)}`, value: spreads.own, text: `${fixed(spreads.own, 2)} bits – the model` }] : []),
      ], { title: 'Mean entropy by divisor' }),
      h('p', {}, data.dropout
        ? `Dropout here zeroed ${data.zeroed} of ${data.seen} weights (p = ${trimmed(data.dropout)}) and multiplied the kept ones by 1 / (1 − ${trimmed(data.dropout)}) = ${fixed(1 / (1 - data.dropout), 3)}: they grow, so that a row still sums to 1 on average (here ${fixed(data.row_sum, 3)}). Without that growth training and use would see different sizes.`
        : `In training, dropout zeroes a share p of the weights and multiplies the kept ones by 1 / (1 − p), so that a row still sums to 1 on average. ${config.dropout ? `This model’s own p is ${trimmed(config.dropout)}.` : 'This model’s own p is 0; under “Dropout and special tokens” you can choose a p to see what it would do.'}`)));
}

// --- drawing: one cell ---------------------------------------------------------------------------------------------
const bracket = (x, digits = 3) => (x < 0 ? `(${fixed(x, digits)})` : fixed(x, digits));
function drawCell(c) {
  const D = c.head_dim, top = most(c.q, c.k), n = Math.min(3, D), looked = c.row_exps.slice(c.first), half = c.rope_size / 2;
  const terms = c.q.slice(0, n).map((q, i) => `${bracket(q)} × ${bracket(c.k[i])}`).join(' + ') + (D > n ? ` + … (${D} products)` : '');
  const dropout = c.dropout ? (c.dropped === 0 ? `dropped: 0` : `kept: ${fixed(c.model_weight)} / (1 − ${trimmed(c.dropout)}) = <b>${fixed(c.dropped)}</b>`) : null;
  const rows = [
    ['q · k', `${terms} = <b id="attention-dot">${fixed(c.dot)}</b>`, 'the sum of all products'],
    [c.divided_by === D ? '/ √D' : `/ √${trimmed(c.divided_by)}`, `${fixed(c.dot)} / √${trimmed(c.divided_by)} = ${fixed(c.dot)} / ${fixed(Math.sqrt(c.divided_by))} = <b id="attention-scaled">${fixed(c.scaled)}</b>`, c.divided_by === D ? `D = ${D}, the head size` : `a number of this model’s own; the head size is ${D}`],
    c.masked
      ? (c.column > c.row ? ['mask', `${c.column} &gt; ${c.row}: <b>−∞</b>`, 'this token stands in the future'] : ['mask', `${c.row} − ${c.column} ≥ ${span()}: <b>−∞</b>`, 'this token lies outside the window'])
      : ['e<sup>s − max</sup>', `e<sup>${fixed(c.scaled, 3)} − ${bracket(c.largest)}</sup> = <b id="attention-exp">${fixed(c.exp)}</b>`, 'the row’s largest score is taken off first; the shares stay the same and nothing overflows'],
    ['Σ row', `${looked.slice(0, 4).map((x) => fixed(x, 3)).join(' + ')}${looked.length > 4 ? ` + … (${looked.length} tokens)` : ''} = <b id="attention-rowsum">${fixed(c.row_sum)}</b>`, 'over every token it may look at'],
    ['weight', c.masked ? `0 / ${fixed(c.row_sum)} = <b id="attention-weight">0</b>` : `${fixed(c.exp)} / ${fixed(c.row_sum)} = <b id="attention-weight">${fixed(c.weight)}</b>`, 'the share of this token’s value in the mix'],
    dropout && !c.masked ? ['dropout', dropout, 'training mode only'] : null,
  ].filter(Boolean);
  const vector = (name, values, id, size) => h('div.att-vector', {}, h('span', {}, name), strip(values, size, { name: id }));
  fill(slot.cell, 
    h('p.att-readout', {}, h('span.att-tok', { translate: 'no' }, tokens()[c.row][1]), ` (${c.row}) looks at `, h('span.att-tok', { translate: 'no' }, tokens()[c.column][1]), ` (${c.column}), layer ${c.layer}, head ${c.head}${c.kv_head !== c.head ? `, which shares key and value ${c.kv_head}` : ''}`),
    h('div.att-vectors', {},
      vector(`q of ${nameOf(c.row)}`, c.q, 'q', top), vector(`k of ${nameOf(c.column)}`, c.k, 'k', top), vector('q × k', c.products, 'q × k', most(c.products)),
      vector(`v of ${nameOf(c.column)}`, c.v, 'v', most(c.v))),
    h('p.att-note', {}, 'q, k: ', legend(top, true), ' products: ', legend(most(c.products), true)),
    c.q_root ? h('p.att-note', {}, `Before that, q and k were normed: divided by their root mean square${state.data.config.qk_norm === 'head' ? '' : ' over all heads'}, ${fixed(c.q_root, 3)} for q and ${fixed(c.k_root, 3)} for k, times a learned scale.`) : null,
    c.angles ? h('p.att-note', {}, `RoPE turned ${c.rope_size < D ? `the first ${c.rope_size} of their ${D} numbers` : 'them'}${c.q_root ? ' next' : ' first'}: pair 0 of q by ${c.row} × ${trimmed(c.rate)} = ${fixed(c.angles[0][0], 2)} radians from (${short(c.q_before[0])}, ${short(c.q_before[half])}) to (${short(c.q[0])}, ${short(c.q[half])}); pair 0 of k by ${fixed(c.angles[1][0], 2)}. Their product depends on the distance ${c.row - c.column} only.`) : null,
    h('table.att-steps', {}, h('tbody', {}, rows.map(([name, middle, why]) => h('tr', {}, formula(name, 'th'), formula(middle, 'td'), h('td.att-remark', {}, why))))),
    h('details.att-all', {}, h('summary', {}, `All ${D} numbers of q, k and their products`), h('div.att-scroll', {}, h('table.att-numbers', {}, h('thead', {}, h('tr', {}, ['i', 'q', 'k', 'q × k'].map((t) => h('th', {}, t)))), h('tbody', {}, c.q.map((q, i) => h('tr', {}, [i, fixed(q), fixed(c.k[i]), fixed(c.products[i])].map((t) => h('td', {}, String(t))))))))));
}

// --- drawing: next token, lens -------------------------------------------------------------------------------------
function drawNext() {
  const { next, next_whole: whole } = state.data;
  const rows = next.map(([id, name, logit, p], i) => ({ name, value: p, second: whole ? whole[i] : undefined, text: whole ? `${percent(p)} · was ${percent(whole[i])}` : `${percent(p)} · logit ${fixed(logit, 2)}` }));
  fill(slot.next, 
    h('p.att-readout', {}, 'after ', h('span.att-tok', { translate: 'no' }, tokens().slice(-3).map(([, name]) => name).join(''))),
    bars(rows, { top: Math.max(...next.map((t) => t[3]), ...(whole ?? [0])), title: 'Likeliest next tokens', foreign: true }),
    whole ? h('p.att-note', {}, `${state.muted.map(([l, n]) => `layer ${l} head ${n}`).join(', ')} muted (zeros go into the output projection): the thin bar is the whole model. `, h('button.att-link', { type: 'button', onclick: () => { state.muted = []; drawBar(); look(false); } }, 'Unmute all'))
      : h('p.att-note', {}, 'Mute a head with the button above to see what the answer owes to it.'));
}
function drawLens(found) {
  const { grid: table, layers, start, position, norm_position } = found, top = (p) => `color-mix(in srgb, var(--color-accent) ${Math.round(100 * p)}%, transparent)`;
  const rowName = (i) => (i ? `after layer ${i - 1}` : 'embedding');
  const body = table.map((row, i) => h('tr', {}, h('th', {}, rowName(i)), row.map(([id, name, p], c) => {
    const node = h('td', { title: `${percent(p)}`, onclick: () => choose(start + c) }, name);
    node.style.background = top(0.85 * p); if (p > 0.55) node.classList.add('att-strong');
    if (start + c === position) node.classList.add('att-chosen-column');
    return node;
  }))).reverse();
  const head = h('tr', {}, h('th', {}, 'reads'), table[0].map((_, c) => h('th', { class: start + c === position ? 'att-chosen-column' : null }, h('button.att-link', { type: 'button', onclick: () => choose(start + c) }, found.tokens[start + c][1]))));
  const details = layers.map((layer, i) => h('tr', {}, h('th', {}, rowName(i)), h('td', {}, layer.top.map(([, name, , p]) => h('span.att-guess', {}, h('span.att-tok', { translate: 'no' }, name), ` ${percent(p)}`))), h('td.num', {}, `${layer.answer_place}.`), h('td.num', {}, percent(layer.answer_p)), h('td.num', {}, fixed(layer.entropy, 2)))).reverse();
  fill(slot.lens,
    formula(norm_position !== 'post' ? 'logits<sub>l</sub> = W<sub>out</sub> · norm(x<sub>l</sub>): the stream after layer l, through the final norm and the output matrix' : 'logits<sub>l</sub> = W<sub>out</sub> · x<sub>l</sub>: this post-norm model ends each block with a norm and has no final one'),
    h('div.att-scroll', {}, h('table.att-lensgrid', { id: 'attention-lensgrid' }, h('thead', {}, head), h('tbody', {}, body))),
    h('p.att-note', {}, `Each cell: the likeliest next token there, the darker the surer.${start > 0 || table[0].length < found.tokens.length ? ` Shown: tokens ${start} to ${start + table[0].length - 1}.` : ''}`),
    code('lens'),
    h('h4', {}, 'After ', h('span.att-tok', { translate: 'no' }, found.tokens[position][1]), ` (${position}), layer by layer`),
    h('div.att-scroll', {}, h('table.att-details', { id: 'attention-lensrows' }, h('thead', {}, h('tr', {}, ['', 'likeliest', 'answer’s place', 'answer’s p', 'entropy, bits'].map((t, i) => h('th', { class: i > 1 ? 'num' : null }, t)))), h('tbody', {}, details))),
    ...(found.attribution ? [
      h('h4', {}, 'Who made the answer ', h('span.att-tok', { translate: 'no' }, found.answer[1])),
      formula(`logit = Σ<sub>parts</sub> W<sub>out</sub>[answer] · ${state.data.config.norm === 'layernorm' ? '(part − its mean)' : 'part'} / root × scale = <b>${fixed(found.answer_logit, 3)}</b>: the stream is a sum, so its logit is one too`),
      h('div.att-scroll.att-parts', {}, bars(found.attribution.map(([name, value]) => ({ name: name === 'token' && state.data.config.embedding_scale ? `token × √${state.data.config.n_embd}` : name, value })), { signed: true, title: 'Share of each part in the logit' })),
      ['sandwich', 'output'].includes(norm_position) ? h('p.att-note', {}, 'Each attention and MLP as it is added to the stream: after a norm of its own.') : null, code('attribution'),
    ] : [h('p.att-note', {}, 'A post-norm model norms its stream after every part, so its logit is no sum of the parts.')]));
  const box = slot.lens.querySelector('.att-scroll'), chosen = box.querySelector('thead .att-chosen-column');
  if (chosen) box.scrollLeft = chosen.offsetLeft - box.clientWidth * 0.7;
}

// --- drawing: the rest of the block --------------------------------------------------------------------------------
function drawBlock(b) {
  const colour = ['var(--lab-train)', 'var(--lab-val)', 'var(--lab-3)'];
  const rms = b.norm === 'rmsnorm', measure = rms ? 'root mean square' : 'deviation';
  const norm = (name, title) => {
    const n = b.norms[name], series = [{ name: 'before', y: n.before[measure], colour: colour[0] }, { name: 'after', y: n.after[measure], colour: colour[1], dash: '5 4' }];
    const cells = (which) => ['mean', 'deviation', 'root mean square'].map((k) => h('td.num', {}, fixed(n[which][k][b.position], 3)));
    return h('figure', {}, h('h4', {}, title),
      formula(rms ? `y = x / √(mean(x²) + ${b.norm_eps}) × scale` : `y = (x − mean) / √(variance + ${b.norm_eps}) × scale${n.shift ? ' + shift' : ''}`),
      lines(series, { xTitle: 'token', yTitle: rms ? 'root mean square' : 'standard deviation', zero: true, marks: [{ x: b.position }], height: 180, label: `${title}: ${measure} by token before and after` }), keys(series),
      h('table.att-details', {}, h('thead', {}, h('tr', {}, ['token ' + b.position, 'mean', 'deviation', 'RMS'].map((t, i) => h('th', { class: i ? 'num' : null }, t)))), h('tbody', {}, h('tr', {}, h('th', {}, 'before'), cells('before')), h('tr', {}, h('th', {}, 'after'), cells('after')))),
      h('div.att-vectors', {}, h('div.att-vector', {}, h('span', {}, 'before'), strip(n.before_here, most(n.before_here), { name: 'before' })), h('div.att-vector', {}, h('span', {}, 'after'), strip(n.after_here, most(n.after_here), { name: 'after' })),
        h('div.att-vector', {}, h('span', {}, 'scale'), strip(n.scale, most(n.scale), { name: 'scale' })), n.shift ? h('div.att-vector', {}, h('span', {}, 'shift'), strip(n.shift, most(n.shift), { name: 'shift' })) : null),
      h('p.att-note', {}, `learned scale: ${short(Math.min(...n.scale))} to ${short(Math.max(...n.scale))}${n.shift ? `; shift: ${short(Math.min(...n.shift))} to ${short(Math.max(...n.shift))}` : '; no shift'}`));
  };
  const H = b.heads.shape[0], n = b.tokens.length, at = (array, row) => array[row * n + b.position];
  const gated = b.mlp === 'swiglu' || b.mlp === 'geglu', curve = { swiglu: 'SiLU', geglu: 'GELU' }[b.mlp] ?? b.mlp;
  const CURVES = { geglu: 'GEGLU: GELU(gate) × up, with GELU(x) ≈ x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))', gelu: 'GELU(x) = x Φ(x)', gelu_tanh: 'GELU(x) ≈ x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))', relu: 'ReLU(x) = max(0, x)', swiglu: 'SwiGLU: SiLU(gate) × up, with SiLU(x) = x / (1 + e<sup>−x</sup>)' };
  const [low, high] = b.range, counted = most(b.histogram), [cx, cy] = b.curve;
  const curveHigh = Math.max(...cy);
  const growth = [{ name: 'length of the stream', y: b.stops.map((_, i) => at(b.lengths, i)), colour: colour[0] }, { name: 'length of what is added', y: b.stops.map((_, i) => at(b.added, i)), colour: colour[1], dash: '5 4' }];
  const { config } = state.data, ways = {
    pre: config.parallel ? 'x + attention(norm(x)) + MLP(norm(x)): both read the same stream, each through its norm' : 'x + attention(norm(x)), then x + MLP(norm(x))',
    post: 'norm(x + attention(x)), then norm(x + MLP(x))',
    sandwich: 'x + norm(attention(norm(x))), then x + norm(MLP(norm(x)))',
    output: 'x + norm(attention(x)), then x + norm(MLP(x))',
  };
  const titles = {
    post: ['Norm after the sum with the attention', 'Norm after the sum with the MLP'], output: ['Norm of what the attention gives', 'Norm of what the MLP gives'],
  }[b.norm_position] ?? ['Norm before the attention', 'Norm before the MLP'];
  const outward = b.norms.norm1_out ? [norm('norm1_out', 'Norm of what the attention gives'), norm('norm2_out', 'Norm of what the MLP gives')] : [];
  fill(slot.block, 
    h('p.att-readout', { id: 'attention-way' }, `Layer ${b.layer} at `, h('span.att-tok', { translate: 'no' }, b.tokens[b.position][1]), ` (${b.position}). ${ways[b.norm_position]}`),
    h('div.att-pair', {}, norm('norm1', titles[0]), norm('norm2', titles[1]), ...outward), code('norm'),
    h('div.att-pair', {},
      h('figure', {}, h('h4', {}, 'Output projection: what each head adds'), formula('attention(x) = concat(heads) W<sub>O</sub> = Σ<sub>h</sub> head<sub>h</sub> W<sub>h</sub>'),
        bars([...Array.from({ length: H }, (_, i) => ({ name: `head ${i}`, value: at(b.heads, i) })), ...(b.out_bias !== null ? [{ name: 'bias', value: b.out_bias }] : []), { name: 'their sum', value: b.attention_out[b.position] }, ...(b.attention_added ? [{ name: 'normed', value: b.attention_added[b.position] }] : [])], { title: 'Length of each head’s part' }),
        h('p.att-note', {}, `Euclidean lengths. The sum is shorter than its parts together where they point apart.${b.attention_added ? ' Its norm then gives it the length that is added to the stream.' : ''}`), code('projection')),
      h('figure', {}, h('h4', {}, `MLP: ${b.hidden} numbers bent by a curve`), formula(CURVES[b.mlp]),
        lines([{ name: 'how often, on the whole text', x: Array.from({ length: 60 }, (_, i) => low + ((i + 0.5) / 60) * (high - low)), y: Array.from(b.histogram, (v) => (v / counted) * curveHigh * 0.9), colour: 'var(--lab-4)', wide: 1 }, { name: curve, x: cx, y: cy, colour: colour[0] }], { xTitle: gated ? 'gate before' : 'before', yTitle: 'after', points: { x: b.before_here, y: b.after_here }, height: 230, label: 'The curve with the activations of the chosen token on it' }),
        h('div.att-keys', {}, h('span', {}, h('i.att-dot'), `this token’s ${b.hidden} activations`), keys([{ name: 'all tokens: how often', colour: 'var(--lab-4)' }])),
        h('p.att-note', {}, `On this text ${percent(b.below_zero)} of the inputs lie below zero and ${percent(b.nearly_off)} of the outputs within 0.05 of it.`), code('mlp'))),
    h('div.att-pair', {},
      h('figure', {}, h('h4', {}, 'The residual stream, layer by layer'), formula(`${b.norm_position !== 'post' ? '|x<sub>0</sub> + Σ parts|' : 'normed after every part'}${config.embedding_scale ? `, x<sub>0</sub> = √${b.n_embd} × token[id]` : ''}`),
        lines(growth, { xTitle: 'embedding, then attention and MLP of each layer', yTitle: 'length', zero: true, marks: [{ x: 2 * b.layer + 1, text: `layer ${b.layer}` }], label: 'Length of the residual stream by layer' }), keys(growth), code('stream')),
      h('figure', {}, h('h4', {}, 'Weight tying'),
        h('p', {}, b.tied ? `The output matrix is the token embedding: one block of memory with ${b.vocab_size.toLocaleString('en')} × ${b.n_embd} numbers, used at both ends. Training changes both uses at once.` : `This model has an output matrix of its own, beside the token embedding: ${b.vocab_size.toLocaleString('en')} × ${b.n_embd} numbers each.`),
        h('p.att-note', {}, 'Rows of the output matrix that point most nearly where that of ', h('span.att-tok', { translate: 'no' }, b.tokens[b.position][1]), ' does (cosine):'),
        bars(b.near.map(([, name, value]) => ({ name, value, text: fixed(value, 3) })), { top: 1, signed: true, title: 'Nearest tokens', foreign: true }), code('tying'))));
}

// --- drawing: positions --------------------------------------------------------------------------------------------
const heat = (values, rows, columns, top, note, square) => {
  const canvas = h(square ? 'canvas.att-heat.att-square' : 'canvas.att-heat', { role: 'img', 'aria-label': note });
  canvas.width = columns; canvas.height = rows;
  canvas.getContext('2d').drawImage(pixels(values, rows, columns, top, true), 0, 0);
  return canvas;
};
function drawPositions() {
  const p = state.positions;
  if (!p || p.model !== state.controls.model || !state.data) return;
  const P = p.context_length, kind = p.position, here = state.row, { config, windows } = state.data, reach = windows[state.layer];
  const parts = [];
  if (kind === 'learned' || kind === 'sinusoidal') {
    const [rows, C] = p.vectors.shape, top = most(p.vectors), each = p.step > 1 ? `, every ${ordinal(p.step)} row` : '';
    parts.push(
      formula(kind === 'learned' ? 'x = token[id] + position[i]' : 'x = token[id] + s(i), s<sub>2k</sub>(i) = sin(i / 10000<sup>2k/C</sup>), s<sub>2k+1</sub>(i) = cos(i / 10000<sup>2k/C</sup>)'),
      h('div.att-pair', {},
        h('figure', {}, h('h4', {}, kind === 'learned' ? `The learned table: ${p.rows} rows of ${p.n_embd}` : `Sines and cosines of ${p.rows} places${p.rows > P ? `, ${P} of them trained on` : ''}`), heat(p.vectors, rows, C, top, 'Position vectors'), h('p.att-note', {}, `down: place${each}; across: the ${C} numbers `, legend(top, true))),
        h('figure', {}, h('h4', {}, 'How alike two places are'), heat(p.cosines, rows, rows, 1, 'Cosine similarity of places', true), h('p.att-note', {}, 'cosine of every place with every place ', legend(1, true)))));
  }
  if (reach) parts.push(h('p', {}, `Layer ${state.layer} has a sliding window: a token sees ${reach.toLocaleString('en')} tokens, itself and those before it${config.global_every ? `; every ${ordinal(config.global_every)} layer sees all` : ''}.`));
  if (kind === 'rope') {
    const own = (reach && p.layers.sliding) || p.layers.all, speed = Array.from(own.speed), scaled = own.unscaled ? Array.from(own.unscaled) : null, size = own.size < p.head_dim ? 'R' : 'D';
    const dial = (angle, i) => svg('svg', { viewBox: '-20 -20 40 40', class: 'att-dial', role: 'img', 'aria-label': `pair ${i}: ${fixed(angle, 2)} radians` }, svg('circle', { r: 16, class: 'att-ring' }), svg('line', { x1: 0, y1: 0, x2: (14 * Math.cos(angle)).toFixed(2), y2: (-14 * Math.sin(angle)).toFixed(2), class: 'att-hand' }), svg('title', {}, `pair ${i}: ${fixed(angle, 3)} radians at place ${here}`));
    const series = [{ name: 'q · k left at a distance, when q = k', x: own.distances, y: own.by_distance, colour: 'var(--lab-train)' }, ...(scaled ? [{ name: 'without the slowing down', x: own.distances, y: own.by_distance_unscaled, colour: 'var(--lab-val)', dash: '5 4' }] : [])];
    const full = (n) => `${trimmed(n)} full ${n === 1 ? 'turn' : 'turns'}`;
    const slowed = { linear: `; all divided by ${trimmed(config.rope_factor)}`, llama3: `; divided by ${trimmed(config.rope_factor)} for pairs of fewer than ${full(config.rope_low)} in ${config.rope_original.toLocaleString('en')} tokens, untouched for those of more than ${full(config.rope_high)}, in between by degrees` }[scaled ? config.rope_scaling : 'none'] ?? '';
    const turns = (t) => (t >= 1e5 ? t.toExponential(1) : fixed(t, 1));
    parts.push(...[
      formula(`pair k is turned by i × θ<sup>−2k/${size}</sup> radians at place i; θ = ${own.theta.toLocaleString('en')}, ${size} = ${own.size}${slowed}`),
      size === 'R' ? h('p', {}, `Only the first ${own.size} of a head’s ${p.head_dim} numbers are turned; the other ${p.head_dim - own.size} meet as they are, at any distance.`) : null,
      p.layers.sliding ? h('p', {}, `Layers with a sliding window turn with θ = ${p.layers.sliding.theta.toLocaleString('en')}, the others with θ = ${p.layers.all.theta.toLocaleString('en')}${config.rope_scaling === 'none' ? '' : ', slowed down'}. Shown: layer ${state.layer}.`) : null,
      h('div.att-pair', {},
        h('figure', {}, h('h4', {}, `The ${speed.length} pairs of q and k at place ${here}`), h('div.att-dials', {}, speed.map((s, i) => dial(s * here, i))),
          h('div.att-scroll.att-tall', {}, h('table.att-details', {}, h('thead', {}, h('tr', {}, ['pair', 'radians a token', ...(scaled ? ['unscaled'] : []), 'tokens a turn', `turns in ${P.toLocaleString('en')}`].map((t) => h('th.num', {}, t)))), h('tbody', {}, speed.map((s, i) => h('tr', {}, [i, short(s), ...(scaled ? [short(scaled[i])] : []), turns(own.turn[i]), fixed(P / own.turn[i], 2)].map((t) => h('td.num', {}, String(t)))))))),
          h('p.att-note', {}, own.unfinished ? `${own.unfinished} of ${speed.length} pairs never come full circle within ${P.toLocaleString('en')} tokens: beyond it they reach angles this model has never seen.` : `Every pair comes full circle within ${P.toLocaleString('en')} tokens.`)),
        h('figure', {}, h('h4', {}, 'What turning leaves of a match'), formula(size === 'R' ? 'R/D × mean over pairs of cos(distance × speed) + (1 − R/D)' : 'mean over pairs of cos(distance × speed)'), lines(series, { xTitle: 'distance in tokens', marks: [{ x: P, text: 'trained up to here', left: true }, ...(reach && reach < P ? [{ x: reach, text: 'window', low: true }] : [])], zero: true, label: 'Mean cosine by distance' }), keys(series)))].filter(Boolean));
  }
  if (kind === 'none') parts.push(h('p', {}, 'This model is told no positions at all. What it knows of order it has from the causal mask: the first token sees one token, the tenth sees ten.'));
  parts.push(code(() => kind));
  slot.beyond = h('div.att-beyond');
  const choice = h('select', { id: 'attention-beyond-text', 'aria-label': 'Text to measure on' }, p.datasets.map((name) => h('option', { value: name, translate: 'no' }, name)));
  const go = h('button.att-go', { type: 'button', id: 'attention-beyond', onclick: async () => {
    go.disabled = true; fill(slot.beyond, h('p.att-note', {}, 'Reading…'));
    const found = await server.beyond(request({ dataset: choice.value, factor: 2 }));
    go.disabled = false;
    state.beyond = found.error ? found : { ...unpack(found), dataset: choice.value, model: state.controls.model };
    drawBeyond();
  } }, 'Measure it');
  const tooLong = 2 * P > p.most_beyond;
  parts.push(h('h4', {}, `Beyond ${P.toLocaleString('en')} tokens`),
    p.refusal ? h('p', {}, 'A learned table has no further row, so the model refuses: ', h('q', {}, p.refusal)) : h('p', {}, kind === 'none' ? 'Nothing stops it from reading on; whether it still predicts well is a question of measurement.' : `${kind === 'rope' ? 'The angles' : 'The sinusoids'} go on by formula and the model reads on. Whether it still predicts well is a question of measurement: its loss at each place, on a text twice as long as its context.${tooLong ? ` That takes minutes for ${(2 * P).toLocaleString('en')} tokens, so it is done for models of up to ${(p.most_beyond / 2).toLocaleString('en')} tokens only.` : ''}`),
    ...(p.refusal || tooLong ? [] : [p.datasets.length ? h('p.att-ask', {}, 'Mean loss by place on the end of ', choice, go) : h('p.att-note', {}, 'There is no dataset to measure on yet.'), slot.beyond, code('beyond')]));
  fill(slot.positions, ...parts);
  drawBeyond();
}
function drawBeyond() {
  const b = state.beyond;
  if (!slot.beyond || !b || (b.model && b.model !== state.controls.model)) return;
  if (b.error) return fill(slot.beyond, h('p.att-note', { role: 'alert' }, b.error));
  const series = [{ name: 'loss in nats', x: b.starts, y: b.losses, colour: 'var(--lab-train)' }];
  fill(slot.beyond, 
    lines(series, { width: root.clientWidth < 640 ? 340 : 900, height: 230, xTitle: 'place in the text', yTitle: 'mean −ln p', marks: [{ x: b.context_length, text: 'trained up to here' }], label: `Loss by position: ${fixed(b.inside, 3)} within, ${fixed(b.outside, 3)} beyond` }),
    h('p', {}, 'Mean loss ', h('b', { id: 'attention-inside' }, fixed(b.inside, 3)), ` within the ${b.context_length} tokens of training and `, h('b', { id: 'attention-outside' }, fixed(b.outside, 3)), ` in the ${b.length - b.context_length} beyond, over ${b.stretches} stretches of ${b.dataset}.`));
}

// --- listening -----------------------------------------------------------------------------------------------------
let timer = 0;
function heard() {
  if (!props.value) return;
  let controls;
  try { controls = JSON.parse(props.value); } catch { return; }
  const first = !state.controls, other = !first && controls.model !== state.controls.model;
  if (first || other) { // a link names layer and head; another model starts at its first head
    const link = new URLSearchParams(first ? location.search : ''), number = (key) => { const n = Number(link.get(key)); return Number.isInteger(n) && n >= 0 ? n : 0; };
    state.layer = number('attention.layer'); state.head = number('attention.head'); state.muted = [];
  }
  const changed = JSON.stringify(controls) !== JSON.stringify(state.controls), text = state.controls?.text !== controls.text;
  if (!changed) return;
  state.controls = controls;
  clearTimeout(timer);
  timer = setTimeout(() => look(first || other || text), first || other ? 0 : 120);
}
watch('value', heard);
heard();

let width = 0;
new ResizeObserver(() => {
  const now = root.clientWidth;
  if (!now || now === width || !state.data) return;
  width = now;
  drawGrid(); drawLarge(); drawStages();
}).observe(root);
new MutationObserver(() => { if (state.data && root.clientWidth) { drawGrid(); drawLarge(); drawStages(); } }).observe(document.body, { attributes: true, attributeFilter: ['class'] });
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) { const name = entry.target.id.replace('attention-', ''); if (name in seen) seen[name] = entry.isIntersecting; }
  later();
}, { rootMargin: '300px' });
for (const name of Object.keys(seen)) observer.observe(root.querySelector(`#attention-${name}`));
