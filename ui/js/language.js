// The page in another language: runs from the head, before widgets are made. `languages`: {code: [name, address of its file]}, English first.
// Texts are looked up by their English as they come into the page (ui/languages/README.md); in English nothing is watched at all.
(languages) => {
  const KEY = 'lab-language', LONGEST = 1500, MOST = 4000;
  const store = { // a browser may refuse: then the address keeps the choice
    get: () => { try { return localStorage.getItem(KEY); } catch { return null; } },
    set: (code) => { try { localStorage.setItem(KEY, code); return true; } catch { return false; } },
  };
  const query = new URLSearchParams(location.search);
  const known = (code) => (Object.hasOwn(languages, code ?? '') ? code : null);
  const asked = known(query.get('lang'));
  // the language is the reader's, not the view's: it moves from the address to the browser, so that shared links do not carry it
  if (asked && store.set(asked)) {
    query.delete('lang');
    history.replaceState(history.state, '', location.pathname + (query.size ? '?' + query : '') + location.hash);
  }
  const own = (navigator.languages ?? [navigator.language]).map((one) => known(one.slice(0, 2).toLowerCase())).find(Boolean);
  const code = asked ?? known(store.get()) ?? own ?? 'en';
  document.documentElement.lang = code;

  // --- the switch in the header, which says when it is there
  window.lab = window.lab ?? {};
  window.lab.showLanguage = (header) => {
    const select = header.querySelector('#lab-language');
    select.value = code;
    select.previousElementSibling.textContent = languages[code][0];
  };
  document.addEventListener('change', (event) => {
    if (event.target.id !== 'lab-language') return;
    window.lab?.flush?.();
    const params = new URLSearchParams(location.search);
    if (!store.set(event.target.value)) params.set('lang', event.target.value);
    const text = params.toString();
    history.replaceState(history.state, '', location.pathname + (text ? '?' + text : '') + location.hash);
    location.reload();
  });
  if (code === 'en') return;

  // --- the catalogue: exact texts by hash, texts with holes by a rare word of theirs
  const NUMBER = '[-−+±<>≥≤~]? ?(?:\\d[\\d,.\u202f]*(?:e[-−+]?\\d+)?|∞|–)(?: ?(?:%|[KMGT]B|[kMGTP]|bytes))?';
  const HOLES = { '': '(.+?)', '*': '(.*?)', '#': `(${NUMBER})` };
  const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const words = (text) => text.match(/[\p{L}]+/gu) ?? [];
  // The words of a text with holes that stand whole in what it becomes: none that touches a hole.
  const fixed = (text) => text.split(/\{[*#]?\}/).flatMap((part, i, all) =>
    words(part.slice(i ? part.match(/^\p{L}*/u)[0].length : 0).replace(i < all.length - 1 ? /\p{L}+$/u : /$^/, '')));
  const exact = new Map(), byWord = new Map(), caches = [new Map(), new Map()];
  const learn = (entries) => {
    const holed = [], often = new Map();
    for (const [english, text] of Object.entries(entries)) {
      if (!english || !text) continue;
      if (!/\{[*#]?\}/.test(english)) { exact.set(english, text); continue; }
      const own = fixed(english);
      holed.push([english, text, own]);
      for (const word of new Set(own)) often.set(word, (often.get(word) ?? 0) + 1);
    }
    for (const [english, text, own] of holed) {
      const rare = own.reduce((best, word) => (best === null || often.get(word) < often.get(best) ? word : best), null);
      const kinds = [...english.matchAll(/\{([*#]?)\}/g)].map((hole) => hole[1]);
      const entry = { english, text, own, kinds, pattern: null, size: english.replace(/\{[*#]?\}/g, '').length, loose: own.length < 2 && english.length < 16 && kinds.some((kind) => kind !== '#') };
      byWord.has(rare) ? byWord.get(rare).push(entry) : byWord.set(rare, [entry]);
    }
  };
  const pattern = (entry) => (entry.pattern ??= new RegExp('^' + entry.english.split(/(\{[*#]?\})/)
    .map((part) => { const hole = /^\{([*#]?)\}$/.exec(part); return hole ? HOLES[hole[1]] : literal(part); }).join('') + '$', 'u'));
  const filled = (entry, found) => {
    let next = 0;
    return entry.text.replace(/\{(\d*)\}/g, (_, place) => {
      const i = place === '' ? next++ : Number(place);
      return entry.kinds[i] === '*' ? say(found[i + 1]) : found[i + 1];
    });
  };
  // `isLabel`: an attribute; a template with one word and a hole for anything is for those only.
  const one = (text, isLabel) => {
    const found = exact.get(text);
    if (found !== undefined) return found;
    const inside = new Set(words(text));
    let best = null, match = null; // the template that says most of the text itself
    for (const word of inside) for (const entry of byWord.get(word) ?? []) {
      if (entry.size <= (best?.size ?? 0) || (entry.loose && !isLabel) || !entry.own.every((fixed) => inside.has(fixed))) continue;
      const holes = pattern(entry).exec(text);
      if (holes) [best, match] = [entry, holes];
    }
    if (best) return filled(best, match);
    const end = /(?<=.) ?[;:,·]$/.exec(text); // a part that another one follows
    const said = end && one(text.slice(0, end.index), isLabel);
    return said === null ? null : said + end[0];
  };
  // The parts of a text, joined into as long ones as are known; null unless every one is.
  const pieced = (parts, isLabel) => {
    const said = [];
    for (let i = 0; i < parts.length;) {
      let next = null, to = parts.length;
      for (; to > i; to--) {
        const part = parts.slice(i, to).join(' ');
        next = /\p{L}{2}/u.test(part) ? one(part, isLabel) : part;
        if (next !== null) break;
      }
      if (next === null) return null;
      said.push(next);
      i = to;
    }
    return said.join(' ');
  };
  // A text as a whole, else sentence by sentence, else as a list, when all of it is known; null when it is none of ours.
  const whole = (text, isLabel = false) => {
    const found = one(text, isLabel);
    if (found !== null || text.length > 600) return found;
    for (const ends of [/(?<=[.!?:;·]) /, /(?<=[.!?:;·,]) /]) {
      const parts = text.split(ends);
      const said = parts.length > 1 && parts.length < 12 ? pieced(parts, isLabel) : null;
      if (said !== null) return said;
    }
    return null;
  };
  const translate = (text, isLabel = false) => {
    if (text.length > LONGEST || !/[A-Za-z]/.test(text)) return null;
    const cache = caches[Number(isLabel)];
    if (cache.has(text)) return cache.get(text);
    const [, before, inside, after] = /^(\s*)([^]*?)(\s*)$/.exec(text);
    const found = whole(inside.replace(/\s+/g, ' '), isLabel);
    const said = found === null ? null : before + found + after;
    if (cache.size >= MOST) cache.clear();
    cache.set(text, said);
    return said;
  };
  const say = (text) => translate(text) ?? text;

  // --- what comes into the page
  // Foreign text: the nearest mark counts. In lists to choose from (names, mostly) and in the labels of foreign parts only what
  // has a blank in it is ours.
  const isForeign = (element) => { const mark = element.closest('[translate], .notranslate'); return Boolean(mark) && mark.getAttribute('translate') !== 'yes'; };
  const NO_PROSE = 'script, style, textarea, code, pre, .cm-editor', NAMES = '[role=listbox], .token';
  const several = (text) => /\S\s+\S/.test(text);
  const ATTRIBUTES = ['aria-label', 'title', 'placeholder', 'alt'];
  const done = new WeakMap(); // what was written into a text node, so that its own change is not looked at again
  const read = (node) => {
    const text = node.data;
    if (done.get(node) === text) return;
    const said = translate(text);
    const home = node.parentElement;
    if (said === null || said === text || !home || home.closest(NO_PROSE) || isForeign(home) || (!several(text) && home.closest(NAMES))) return;
    done.set(node, said);
    node.data = said;
  };
  const label = (element, name) => {
    const text = element.getAttribute(name);
    const said = text && translate(text, true);
    if (said && said !== text && (several(text) || !(isForeign(element) || element.closest(NAMES)))) element.setAttribute(name, said);
  };
  const labels = (element) => { for (const name of ATTRIBUTES) if (element.hasAttribute(name)) label(element, name); };
  const walk = (root) => {
    if (root.nodeType === Node.TEXT_NODE) return read(root);
    if (root.nodeType !== Node.ELEMENT_NODE) return;
    labels(root);
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT,
      (node) => (node.nodeType === Node.ELEMENT_NODE && node.matches('script, style') ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
    for (let node = walker.nextNode(); node; node = walker.nextNode()) node.nodeType === Node.TEXT_NODE ? read(node) : labels(node);
  };
  const begin = () => {
    // labels and choices as Gradio gets them: what a closed dropdown shows is no text of the page
    for (const { props } of window.gradio_config?.components ?? []) {
      for (const name of ['label', 'info', 'placeholder']) if (typeof props[name] === 'string') props[name] = say(props[name]);
      for (const choice of props.choices ?? []) { // where name and value are one word it is a name
        const [name, value] = [choice].flat();
        if (typeof name === 'string' && (name !== value || several(name))) choice[0] = say(name);
      }
    }
    new MutationObserver((changes) => {
      for (const change of changes) {
        if (change.type === 'characterData') read(change.target);
        else if (change.type === 'attributes') label(change.target, change.attributeName);
        else change.addedNodes.forEach(walk);
      }
    }).observe(document.documentElement, { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ATTRIBUTES });
    walk(document.documentElement);
    document.documentElement.style.setProperty('--lab-said-led', JSON.stringify(say('The teacher shows this view'))); // written by ui/css/room.css
    for (const name of ['confirm', 'prompt', 'alert']) {
      const plain = window[name].bind(window);
      window[name] = (text, ...more) => plain(say(String(text)), ...more);
    }
  };
  // The file is waited for: widgets are made in its language, nothing is shown in English first. The browser keeps it, as
  // its address names its content. Without it (the server restarts) the page stays in English.
  try {
    const file = new XMLHttpRequest();
    file.open('GET', languages[code][1], false);
    file.send();
    if (file.status !== 200) return;
    learn(JSON.parse(file.responseText));
  } catch { return; }
  begin();
}
