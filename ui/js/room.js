// Share, lessons and class: runs once when the page opens, after shell.js. `mode` is the lab's, filled in by the server.
(mode) => {
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
      else if (value === true) node.setAttribute(key, '');
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const post = async (path, body = {}) => {
    const answer = await fetch(`lab/${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error ?? 'The lab does not answer.');
    return told;
  };
  const tell = (error) => window.lab.refused(error.message, 10);
  const query = () => new URLSearchParams(location.search);
  const percent = (x) => (x < 0.0005 ? (x ? '<0.1 %' : '0 %') : `${(100 * x).toFixed(x < 0.1 ? 1 : 0)} %`);

  // --- a window over the page
  const show = (title, ...content) => {
    document.querySelector('dialog.lab-dialog')?.remove();
    const dialog = make('dialog', { class: 'lab-dialog', 'aria-label': title },
      make('header', {}, make('h2', {}, title), make('button', { type: 'button', class: 'lab-close', 'aria-label': 'Close', onclick: () => dialog.close() }, '×')), ...content);
    dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener('close', () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    return dialog;
  };

  // --- share what I see
  const HIDE = [['tabs', 'the row of tabs'], ['header', 'the header'], ['intro', 'the introductions'], ['code', 'the code'], ['more', 'further settings']];
  const share = async () => {
    window.lab.flush();
    const address = new URL(location.href);
    address.searchParams.delete('__theme');
    for (const one of ['lesson', 'step']) address.searchParams.delete(one);
    if (window.lab.reachable && ['localhost', '127.0.0.1', '[::1]'].includes(address.hostname)) address.host = new URL(window.lab.reachable).host;
    const link = make('textarea', { readonly: true, rows: 3, 'aria-label': 'Link', id: 'share-link' });
    const frame = make('textarea', { readonly: true, rows: 3, 'aria-label': 'Embed', id: 'share-embed' });
    const code = make('img', { alt: 'QR code of the link', class: 'lab-qr', width: 220, height: 220 });
    const note = make('p', { class: 'lab-small' });
    const redo = () => {
      const hidden = [...boxes.querySelectorAll('input:checked')].map((box) => box.value);
      hidden.length ? address.searchParams.set('hide', hidden.join(',')) : address.searchParams.delete('hide');
      link.value = address.href;
      const quoted = address.href.replaceAll('&', '&amp;').replaceAll('"', '&quot;');
      frame.value = `<iframe src="${quoted}" width="100%" height="900" style="border:0" title="LLM Lab"></iframe>`;
      const short = address.href.length <= 1200;
      code.hidden = !short;
      if (short) code.src = `lab/qr?text=${encodeURIComponent(address.href)}`;
      note.textContent = short ? '' : 'The link is too long for a QR code: shorten the text on the page.';
    };
    const given = (query().get('hide') ?? '').split(',');
    const boxes = make('fieldset', {}, make('legend', {}, 'Hide in the shared view'), ...HIDE.map(([value, title]) =>
      make('label', {}, make('input', { type: 'checkbox', value, checked: given.includes(value), onchange: () => redo() }), ` ${title}`)));
    const copy = (box) => make('button', { type: 'button', onclick: async (event) => {
      try { await navigator.clipboard.writeText(box.value); } catch { box.select(); document.execCommand('copy'); }
      event.target.textContent = 'Copied';
    } }, 'Copy');
    show('Share what you see', make('div', { class: 'lab-sharing' },
      make('div', {}, make('p', { class: 'lab-small' }, 'This link opens the tab, model, text and settings as they stand now. Whoever opens it has runs of their own; nothing secret is in it.'),
        link, copy(link), boxes, make('p', { class: 'lab-small' }, 'To put it into a web page (LLM_EMBED_IN must name its site):'), frame, copy(frame)),
      make('div', {}, code, note)));
    redo();
  };

  // --- the list of lessons
  const list = async () => {
    try {
      const found = await post('lessons');
      show('Lessons', make('ol', { class: 'ls-list' }, ...found.lessons.map((one) => make('li', {}, make('a', { href: one.link },
        make('b', {}, one.title), make('span', {}, one.summary),
        make('small', {}, `${one.steps} steps, about ${one.minutes} minutes${one.questions ? `; ${one.answered} of ${one.questions} questions answered` : ''}`))))),
        ...found.refused.map((why) => make('p', { class: 'ls-refused', role: 'alert' }, make('b', {}, 'Not listed: '), why)),
        make('p', { class: 'lab-small' }, make('a', { href: 'lab/hand-in', download: true }, 'Hand in: '), 'your answers and runs as one file.'),
        ...(mode === 'local' ? [] : [make('p', { class: 'lab-small' }, make('a', { href: 'lab/take-away', download: true }, 'Take yours away: '), 'runs, models and texts as one file, for a lab of your own.')]));
    } catch (error) { tell(error); }
  };

  // --- guesses beside what the model finds likely
  const spelled = (token) => token.replaceAll(' ', '␣').replaceAll('\n', '⏎') || '∅';
  const bars = (title, rows, kind) => make('div', { class: 'pl-bars' }, make('h3', {}, title), ...rows.map(([label, share, told]) => make('div', { class: `pl-bar is-${kind}` },
    make('span', { class: 'pl-label', translate: 'no' }, label), make('span', { class: 'pl-track' }, make('i', { style: `width:${100 * share / Math.max(...rows.map((row) => row[1]), 1e-9)}%` })), make('span', { class: 'pl-told' }, told))));
  const twice = (told) => make('div', { class: 'pl-two' },
    bars('Guesses', Object.entries(told.guesses).sort((a, b) => b[1] - a[1]).map(([text, n]) => [spelled(text), n / told.given, String(n)]), 'class'),
    told.truth ? bars(told.model, told.truth.map((row) => [spelled(row.text), row.probability, percent(row.probability)]), 'model') : null);

  // --- a step's question
  const said = (box, told, chosen) => {
    const place = box.querySelector('.ls-said');
    const verdict = told.right === null ? 'Kept.' : told.right ? 'Right.' : `Not quite: ${told.answer}.`;
    place.replaceChildren(make('p', {}, make('b', {}, verdict), ` ${told.reveal}`));
    if (told.truth) place.append(twice(told));
    box.querySelectorAll('.ls-choice').forEach((one) => {
      one.classList.toggle('is-mine', one.dataset.choice === chosen);
      one.classList.toggle('is-right', told.right !== null && one.dataset.choice === told.answer);
    });
  };
  const send = async (box, text) => {
    const bar = box.closest('.ls-bar');
    try { said(box, await post('answer', { lesson: bar.dataset.lesson, step: Number(bar.dataset.step), text }), text); } catch (error) { tell(error); }
  };
  document.addEventListener('click', (event) => {
    const choice = event.target.closest?.('.ls-choice');
    if (choice) send(choice.closest('.ls-ask'), choice.dataset.choice);
    const lead = event.target.closest?.('.ls-lead');
    if (lead) {
      const place = document.querySelector(lead.dataset.at);
      place?.scrollIntoView({ behavior: 'smooth', block: 'center' });
      place?.animate?.([{ outline: '3px solid var(--color-accent)' }, { outline: '3px solid transparent' }], { duration: 2500 });
    }
    if (event.target.closest?.('#lab-share')) share();
    if (event.target.closest?.('#lab-lessons')) list();
    if (event.target.closest?.('#lab-name')) rename();
    if (event.target.closest?.('#lab-follow')) follow();
  });
  document.addEventListener('submit', (event) => {
    const form = event.target.closest?.('.ls-ask .ls-form');
    if (!form) return;
    event.preventDefault();
    send(form.closest('.ls-ask'), form.elements.text.value);
  });

  // --- class: names, the teacher's view, predictions
  let heard = null, problem = '', shownPoll = '', folded = '';
  const refused = window.lab.refused;
  window.lab.refused = (html, seconds) => { problem = new DOMParser().parseFromString(html, 'text/html').body.textContent.slice(0, 300); refused(html, seconds); };
  const rename = async () => {
    if (heard?.login) { if (confirm(`You are logged in as ${heard.name}. Log out?`)) location.assign('logout'); return; }
    const wish = prompt('What are you called?', heard?.name ?? '');
    if (wish === null) return;
    try { heard.name = (await post('name', { name: wish })).name; dress(); } catch (error) { tell(error); }
  };
  const follow = async () => {
    try {
      window.lab.flush();
      await post('teach', heard.follow.query ? { do: 'release' } : { do: 'follow', query: location.search || '?' });
      await ask();
    } catch (error) { tell(error); }
  };
  const dress = () => {
    const name = document.getElementById('lab-name'), button = document.getElementById('lab-follow');
    if (name) { name.hidden = !heard; name.firstElementChild.textContent = heard ? `${heard.name}${heard.teacher ? ' (teacher)' : ''}` : ''; }
    if (button) { button.hidden = !heard?.teacher; button.firstElementChild.textContent = heard?.follow.query ? 'Release the class' : 'Show my view to all'; button.classList.toggle('is-on', Boolean(heard?.follow.query)); }
  };
  const led = (number) => sessionStorage.setItem('lab-followed', number);
  const obey = () => {
    document.body.classList.toggle('lab-led', Boolean(heard.follow.query) && !heard.teacher);
    if (heard.teacher || Number(sessionStorage.getItem('lab-followed') ?? 0) === heard.follow.number) return;
    const before = sessionStorage.getItem('lab-followed') !== null;
    led(heard.follow.number);
    if (!heard.follow.query) { if (before) notice('The teacher has released the class: the page is yours again.'); return; }
    const wanted = new URLSearchParams(heard.follow.query), mine = query();
    wanted.sort(); mine.sort();
    if (wanted.toString() !== mine.toString()) location.assign(location.pathname + heard.follow.query);
  };
  const notice = (sentence) => {
    const box = make('div', { class: 'lab-toast lab-toast-note', role: 'status' }, sentence);
    document.body.append(box);
    setTimeout(() => box.remove(), 6000);
  };
  const drawPoll = () => {
    const poll = heard.poll, mark = JSON.stringify(poll);
    if (mark === shownPoll) return;
    shownPoll = mark;
    const old = document.getElementById('lab-poll'), typed = old?.querySelector('input')?.value ?? '';
    if (!poll) { old?.remove(); return; }
    const box = make('section', { id: 'lab-poll', 'aria-label': 'A question to the class' }, make('button', { type: 'button', class: 'pl-fold', 'aria-label': 'Fold or open', onclick: () => box.classList.toggle('is-folded') }, '–'), make('h2', {}, poll.ask));
    if (old?.classList.contains('is-folded') && folded === `${poll.id} ${poll.revealed}`) box.classList.add('is-folded');
    folded = `${poll.id} ${poll.revealed}`;
    if (poll.prompt) box.append(make('p', { class: 'ls-token', translate: 'no' }, poll.prompt, make('b', {}, '?')));
    const commit = async (text) => { try { heard.poll = await post('guess', { id: poll.id, text }); drawPoll(); } catch (error) { tell(error); } };
    if (!poll.revealed && poll.mine === null) {
      if (poll.choices.length) box.append(make('div', { class: 'ls-choices' }, ...poll.choices.map((one) => make('button', { type: 'button', class: 'ls-choice-poll', onclick: () => commit(one) }, one))));
      else {
        const field = make('input', { maxlength: 100, autocomplete: 'off', 'aria-label': 'Your guess', value: typed });
        box.append(make('form', { class: 'ls-form', onsubmit: (event) => { event.preventDefault(); commit(field.value); } }, field, make('button', { type: 'submit' }, 'Commit')));
      }
    } else if (poll.mine !== null) box.append(make('p', {}, 'You said ', make('b', { translate: 'no' }, spelled(poll.mine)), '.'));
    if (!poll.revealed) box.append(make('p', { class: 'lab-small' }, `${poll.given} ${poll.given === 1 ? 'has' : 'have'} committed.`));
    else box.append(twice(poll));
    if (heard.teacher) {
      const act = (what) => async () => { try { await post('teach', { do: what }); await ask(); } catch (error) { tell(error); } };
      box.append(make('div', { class: 'ls-choices' }, poll.revealed ? null : make('button', { type: 'button', onclick: act('reveal'), id: 'poll-reveal' }, 'Reveal'), make('button', { type: 'button', onclick: act('close'), id: 'poll-close' }, 'Take the question away')));
    }
    old ? old.replaceWith(box) : document.body.append(box);
  };
  const ask = async () => {
    const bar = document.querySelector('.ls-bar');
    const told = await post('now', { tab: query().get('tab') ?? window.lab.onScreen(), lesson: bar?.dataset.lesson ?? '', step: Number(bar?.dataset.step ?? 0), error: problem });
    problem = '';
    heard = told;
    dress(); obey(); drawPoll();
  };
  window.lab.room = { post, make, tell, show, ask, heard: () => heard };
  if (mode === 'class') {
    const again = async () => {
      if (!document.hidden) { try { await ask(); } catch { /* the server restarts: the next question finds it */ } }
      setTimeout(again, 2000 + 500 * Math.random());
    };
    again();
  }
}
