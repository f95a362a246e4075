// The pictures of the Windows tab share this: a text whose tokens are chosen, that token, a batch whose rows are linked.
const root = element;
const send = (detail) => trigger('select', detail);

// The windows of a token stand as "t2-5": training part, windows 2 to 5.
const windowsOf = (token) => {
  const found = /^([tv])(\d+)-(\d+)$/.exec(token?.dataset.w ?? '');
  return found && { side: found[1], first: +found[2], last: +found[3] };
};
const light = (token) => {
  const chosen = windowsOf(token);
  for (const other of root.querySelectorAll('.win-text .wt')) {
    const its = windowsOf(other);
    other.classList.toggle('sel', other === token);
    other.classList.toggle('lit', !!chosen && !!its && chosen.side === its.side && its.first <= chosen.last && chosen.first <= its.last);
  }
};
const choose = (token) => {
  light(token);
  root.querySelector('.win-text').dataset.at = token.dataset.p;
  send({ index: +token.dataset.p });
};

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button?.dataset.go) return send({ index: +button.dataset.go, redraw: true });
  if (button?.dataset.step) return send({ step: +button.dataset.step });
  const token = event.target.closest('.win-text .wt');
  if (token) choose(token);
});

root.addEventListener('keydown', (event) => {
  const text = event.target.closest?.('.win-text');
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!text || !step) return;
  const token = text.querySelector(`.wt[data-p="${+text.dataset.at + step}"]`);
  const position = +text.dataset.at + step;
  if (position < 0 || position >= +text.dataset.n) return;
  event.preventDefault();
  if (token) choose(token); else send({ index: position });
});

// A batch: the target under an input, and the same token in the other row, one place on or back.
const cell = (row, column) => row?.querySelector(`[data-c="${column}"]`);
const clear = () => root.querySelectorAll('.answer, .same, .here').forEach((one) => one.classList.remove('answer', 'same', 'here'));
root.addEventListener('mouseover', (event) => {
  const here = event.target.closest('.win-batch td[data-c]');
  if (!here) return;
  clear();
  const row = here.parentElement, column = +here.dataset.c, isInput = row.classList.contains('x');
  const input = isInput ? row : row.previousElementSibling, target = isInput ? row.nextElementSibling : row;
  here.classList.add('here');
  cell(isInput ? target : input, column)?.classList.add('answer');
  cell(isInput ? target : input, isInput ? column - 1 : column + 1)?.classList.add('same');
  const asked = cell(input, column).textContent, wanted = cell(target, column).textContent;
  const before = column === 0 ? '' : column === 1 ? ' and the token before it' : ` and the ${column} tokens before it`;
  root.querySelector('.win-link').textContent = `Window ${row.dataset.r}, place ${column}: having read ${asked}${before}, the model is asked for ${wanted}.`;
});
root.addEventListener('mouseleave', () => {
  clear();
  const line = root.querySelector('.win-link');
  if (line) line.textContent = line.dataset.said;
});

// The chosen token's column stands in the middle where its table is wider than the screen.
new MutationObserver(() => {
  const column = root.querySelector('.win-ladder th.sel'), pane = column?.closest('.lab-scroll');
  if (pane) pane.scrollLeft = column.offsetLeft - (pane.clientWidth - column.offsetWidth) / 2;
}).observe(root, { childList: true, subtree: true });
