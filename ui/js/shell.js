// Runs once when the page opens: the address bar as the store of the view, the theme switch, figures that fit and follow the theme.
() => {
  // The page is handed a thousand widgets and some hundred handlers. Svelte watches all that a plain object holds, piece by piece, though none
  // of it ever changes; an object of a class of its own it leaves alone, and the page stands in two thirds of the time.
  class Unwatched {}
  for (const list of [window.gradio_config?.components, window.gradio_config?.dependencies]) for (const one of list ?? []) Object.setPrototypeOf(one, Unwatched.prototype);

  const LONGEST = 1500; // as in ui/view.py
  const waiting = new Map();
  let timer = 0, restored = false;

  const query = () => new URLSearchParams(location.search);
  let held = query(); // what the page shows; while a step back is under way the address says something else
  const write = (params, step = false) => { // `step`: one that the back button takes back
    const text = params.toString();
    held = params;
    history[step ? 'pushState' : 'replaceState'](history.state, '', location.pathname + (text ? '?' + text : '') + location.hash);
  };
  const isRoom = (key) => key.endsWith('.room');
  const flush = () => {
    clearTimeout(timer); timer = 0;
    if (!waiting.size) return;
    const params = query();
    const step = restored && [...waiting].some(([key, text]) => isRoom(key) && params.get(key) !== text);
    for (const [key, text] of waiting) text === null ? params.delete(key) : params.set(key, text);
    waiting.clear();
    write(params, step);
  };
  // Back and forward go from tab to tab and from room to room; all else stays as it is set.
  const step = () => {
    clearTimeout(timer); timer = 0;
    const wanted = query(), params = new URLSearchParams(held);
    for (const [key, text] of waiting) text === null ? params.delete(key) : params.set(key, text);
    waiting.clear();
    const tabs = [...document.querySelectorAll('#lab-tabs > .tab-wrapper [role=tab]')];
    const tab = tabs.find((one) => one.dataset.tabId === wanted.get('tab')) ?? tabs[0];
    if (!tab) return;
    const key = `${tab.dataset.tabId}.room`, room = document.getElementById(key.replace('.', '-'));
    if (room && params.get(key) !== wanted.get(key)) {
      wanted.has(key) ? params.set(key, wanted.get(key)) : params.delete(key);
      const choices = [...room.querySelectorAll('input[type=radio]')];
      (choices.find((one) => one.value === wanted.get(key)) ?? choices[0])?.click();
    }
    params.set('tab', tab.dataset.tabId);
    write(params);
    if (window.lab.onScreen() !== tab.dataset.tabId) tab.click();
  };
  const spell = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

  // Gradio's page shows the errors of queued events only: of the others its client gets a 500 with the sentence in it.
  const fetched = window.fetch;
  window.fetch = async (...asked) => {
    const answer = await fetched(...asked);
    if (answer.status === 500 && answer.url.includes('/run/predict')) {
      answer.clone().json().then((told) => { if (told.error) window.lab.refused(told.error, told.duration); }, () => {});
    }
    return answer;
  };

  window.lab = {
    // A sentence for the visitor, for some seconds or until it is closed.
    refused: (html, seconds) => {
      const box = document.createElement('div'), close = document.createElement('button');
      box.className = 'lab-toast'; box.setAttribute('role', 'alert');
      box.textContent = new DOMParser().parseFromString(html, 'text/html').body.textContent; // escaped for Gradio's own toast
      close.type = 'button'; close.textContent = '×'; close.setAttribute('aria-label', 'Close');
      close.addEventListener('click', () => box.remove());
      box.append(close);
      document.querySelectorAll('.lab-toast').forEach((old) => old.remove());
      document.body.append(box);
      setTimeout(() => box.remove(), 1000 * (seconds || 10));
    },
    flush,
    drawn: new Set(), // tabs whose first drawing is done
    onScreen: () => document.querySelector('#lab-tabs > .tab-wrapper [role=tab][aria-selected=true]')?.dataset.tabId ?? '',
    // The view is restored: which tabs are seen, with the one that is on screen by now (it may have been chosen meanwhile).
    restored: (names, seen) => {
      restored = true;
      const now = window.lab.onScreen();
      if (now !== (query().get('tab') ?? names[0])) window.lab.select(now);
      return names.map((name, i) => seen[i] || name === now);
    },
    // Resolves when the widgets of a tab stand in the page: Gradio loses what is told to those that it has not made yet.
    made: async (name) => {
      const frame = () => new Promise((go) => { const timer = setTimeout(go, 100); requestAnimationFrame(() => { clearTimeout(timer); go(); }); });
      for (let i = 0; i < 300 && !document.querySelector(`#tab-${name} .block`)?.offsetParent; i++) await frame();
      await frame();
    },
    // The tab that is on screen; it goes to the address bar if it is `name` (an event may come late, when another is).
    select: (name) => {
      const now = window.lab.onScreen();
      if (!restored || now !== name) return restored ? now : '';
      flush();
      const params = query();
      if (params.get('tab') !== name) { params.set('tab', name); write(params, true); }
      document.querySelector('#lab-tabs > .tab-wrapper [role=tab][aria-selected=true]').scrollIntoView({ block: 'nearest', inline: 'center' });
      return now;
    },
    // A changed value goes to the address bar a moment later; defaults and long texts stay out of it.
    keep: (key, value, initial) => {
      const text = value === null || value === undefined ? '' : spell(value);
      const plain = text === '' && (initial === null || initial === '') ;
      waiting.set(key, plain || (initial !== null && text === spell(initial)) || text.length > LONGEST ? null : text);
      clearTimeout(timer); timer = setTimeout(flush, 250);
    },
    theme: () => {
      const dark = !document.body.classList.contains('dark');
      document.body.classList.toggle('dark', dark);
      localStorage.setItem('lab-theme', dark ? 'dark' : 'light');
      const params = query(); params.delete('__theme'); write(params);
    },
    css: (name) => getComputedStyle(document.body).getPropertyValue(name).trim(),
  };
  addEventListener('pagehide', flush);
  addEventListener('popstate', step);
  document.addEventListener('click', (event) => { if (event.target.closest?.('#lab-theme')) window.lab.theme(); });

  const saved = localStorage.getItem('lab-theme');
  if (saved && !query().has('__theme')) document.body.classList.toggle('dark', saved === 'dark');

  // Plotly: colours from the theme's variables, size from the place it is shown in (a figure filled while hidden has none).
  const restyle = (figure) => {
    if (!window.Plotly || !figure.layout) return;
    const { css } = window.lab;
    const patch = { 'font.color': css('--body-text-color'), paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', autosize: true,
      'hoverlabel.bgcolor': css('--background-fill-secondary'), 'hoverlabel.font.color': css('--body-text-color') };
    for (const axis of Object.keys(figure.layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      patch[axis + '.gridcolor'] = patch[axis + '.zerolinecolor'] = css('--lab-grid');
      patch[axis + '.linecolor'] = css('--border-color-primary');
    }
    window.Plotly.relayout(figure, patch);
  };
  const sizes = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      if (contentRect.width < 1) continue;
      const figure = target.querySelector('.js-plotly-plot');
      if (figure?.layout && window.Plotly && Math.abs((figure._fullLayout?.width ?? 0) - contentRect.width) > 1) window.Plotly.Plots.resize(figure);
    }
  });
  const known = new WeakSet();
  const scan = () => {
    for (const figure of document.querySelectorAll('.js-plotly-plot')) {
      if (known.has(figure) || !figure.layout) continue;
      known.add(figure);
      restyle(figure);
      if (figure.parentElement) sizes.observe(figure.parentElement);
    }
  };
  let queued = false;
  new MutationObserver(() => {
    if (queued) return;
    queued = true;
    setTimeout(() => { queued = false; scan(); }, 60);
  }).observe(document.body, { childList: true, subtree: true });
  new MutationObserver(() => document.querySelectorAll('.js-plotly-plot').forEach(restyle))
    .observe(document.body, { attributes: true, attributeFilter: ['class'] });
  scan();
}
