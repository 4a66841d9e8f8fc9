// The little that a page does by itself: how fresh it is, times, charts, questions, uploads.
"use strict";
(() => {
  const ko = document.documentElement.lang === "ko";
  const $ = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  // -- times: "3 min ago", kept current --------------------------------------------------------
  const UNITS = [[86400, "d", "일"], [3600, "h", "시간"], [60, "min", "분"], [1, "s", "초"]];
  function span(seconds) {
    for (const [size, en, kr] of UNITS) {
      if (seconds >= size || size === 1) {
        const n = Math.max(0, Math.floor(seconds / size));
        return ko ? `${n}${kr}` : `${n} ${en}`;
      }
    }
  }
  let ahead = 0; // how far the server's clock is before ours, seconds
  const now = () => Date.now() / 1000 + ahead;
  function age(at) {
    const passed = now() - at;
    if (passed > 86400 * 3) return null;
    if (passed < 0) return ko ? `${span(-passed)} 후` : `in ${span(-passed)}`;
    if (passed < 3) return ko ? "방금" : "just now";
    return ko ? `${span(passed)} 전` : `${span(passed)} ago`;
  }
  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
  function due(at) {
    if (at - now() < 1) return ko ? "곧" : "any moment";
    return age(at);
  }
  function times() {
    for (const element of document.querySelectorAll("time[data-due]")) write(element, due(Number(element.dataset.due)));
    for (const element of document.querySelectorAll("time[data-ago]")) {
      const text = age(Number(element.dataset.ago));
      write(element, text ?? element.title.slice(0, 16));
    }
  }

  // -- freshness: a page that no longer hears from the server says so ---------------------------
  const fresh = $("fresh");
  let heard = performance.now();
  function freshness() {
    if (!fresh) return;
    const silent = (performance.now() - heard) / 1000;
    const old = silent > 3.5;
    fresh.classList.toggle("old", old);
    write(fresh, old ? fresh.dataset.stale.replace("{n}", span(silent)) : fresh.dataset.live);
  }
  let told = "";
  function tick(event) {
    const head = JSON.parse(event.detail.data);
    heard = performance.now();
    ahead = head.at - Date.now() / 1000;
    if (Math.abs(ahead) < 2) ahead = 0;
    $("pill").className = `pill tone-${head.level}`;
    write($("pill-word"), head.word);
    write($("headline"), head.headline);
    for (const badge of document.querySelectorAll("[data-badge]")) {
      const n = head[badge.dataset.badge];
      badge.hidden = !n;
      write(badge, n.toLocaleString("en"));
    }
    // Only a change of the verdict is worth interrupting somebody who listens.
    const verdict = head.level;
    if (told && told !== verdict) $("announce").textContent = `${head.word}: ${head.headline}`;
    told = verdict;
    freshness();
  }
  $("live")?.addEventListener("tick", tick);
  setInterval(() => { times(); freshness(); }, 1000);

  // -- charts -----------------------------------------------------------------------------------
  const charts = new Map();
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  function resolve(name) { // light-dark() comes out of a property only through a real colour
    const probe = document.createElement("i");
    probe.hidden = true;
    document.body.append(probe);
    probe.style.color = `var(${name})`;
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
  }
  const two = (n) => String(n).padStart(2, "0");
  function hours(_, splits) {
    return splits.map((at) => { const d = new Date(at * 1000); return `${two(d.getHours())}:${two(d.getMinutes())}`; });
  }
  function draw(element) {
    const data = JSON.parse(element.dataset.series);
    charts.get(element)?.destroy();
    element.replaceChildren();
    const ink = resolve("--ink-2"), line = resolve("--line"), flow = resolve("--flow");
    const top = Math.max(4, ...data[1]);
    const axis = { stroke: ink, font: `11px ${style("--sans")}`, ticks: { show: false } };
    charts.set(element, new uPlot({
      width: element.clientWidth, height: element.clientHeight, legend: { show: false },
      cursor: { show: false }, padding: [8, 18, 0, 0],
      scales: { x: { time: true }, y: { range: [0, top * 1.08] } },
      axes: [
        { ...axis, grid: { show: false }, values: hours, size: 24, space: 60 },
        { ...axis, grid: { stroke: line, width: 1 }, size: 34, space: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
      ],
      series: [{}, { label: element.dataset.label, fill: flow, stroke: flow, width: 0, paths: uPlot.paths.bars({ size: [0.72, 28], radius: 0.15 }), points: { show: false } }],
    }, data, element));
    element.dataset.drawn = element.dataset.series;
  }
  function chartsAgain() {
    for (const element of document.querySelectorAll("[data-chart]")) {
      if (!charts.has(element)) sized.observe(element);
      else if (element.dataset.drawn !== element.dataset.series) draw(element);
    }
  }
  const sized = new ResizeObserver((entries) => { for (const e of entries) draw(e.target); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((_, e) => draw(e)));
  document.addEventListener("htmx:after:swap", () => { times(); chartsAgain(); openDialog(); });

  // -- questions --------------------------------------------------------------------------------
  const dialog = $("dialog");
  function openDialog() {
    if (!dialog.childElementCount || dialog.open) { if (dialog.open) focusIn(); return; }
    dialog.showModal();
    focusIn();
  }
  function focusIn() {
    (dialog.querySelector("[autofocus]") ?? dialog.querySelector(".button"))?.focus();
  }
  dialog.addEventListener("close", () => dialog.replaceChildren());
  dialog.addEventListener("click", (event) => {
    const done = event.target.closest("[data-done]");
    if (event.target.closest("[data-close]")) { event.preventDefault(); dialog.close(); return; }
    if (done && new URL(done.href).pathname === location.pathname) { event.preventDefault(); dialog.close(); if (document.body.dataset.operator === "no") location.reload(); }
  });

  // -- copy a command ---------------------------------------------------------------------------
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try { await navigator.clipboard.writeText(button.dataset.copy); } catch { return; }
    button.classList.add("done");
    $("announce").textContent = ko ? "명령을 복사했습니다" : "Command copied";
    setTimeout(() => button.classList.remove("done"), 1500);
  });

  // -- uploads: each file with its own progress and its own answer --------------------------------
  const upload = $("upload"), list = $("up-list");
  if (list) {
    const words = JSON.parse(upload.dataset.words), limit = Number(upload.dataset.limit);
    const queue = [];
    let busy = 0;
    const mb = (n) => `${(n / 1048576).toFixed(1)} MB`;
    function row(file) {
      const item = document.createElement("li"), name = document.createElement("span"), said = document.createElement("span"), bar = document.createElement("progress");
      name.textContent = file.name; said.className = "said"; bar.max = file.size || 1; bar.value = 0;
      bar.setAttribute("aria-label", file.name);
      item.append(name, said, bar);
      list.prepend(item);
      return { item, name, said, bar };
    }
    function end(shown, kind, text) { shown.item.className = kind; shown.said.textContent = text; shown.bar.remove(); }
    function next() {
      while (busy < 3 && queue.length) send(queue.shift());
    }
    function send([file, shown]) {
      busy += 1;
      const body = new FormData(), request = new XMLHttpRequest();
      body.append("file", file, file.name.normalize("NFC"));
      request.open("POST", upload.dataset.url);
      request.setRequestHeader("Accept", "application/json");
      request.upload.onprogress = (event) => {
        shown.bar.value = event.loaded;
        shown.said.textContent = words.sending.replace("{n}", mb(event.loaded)).replace("{m}", mb(event.total));
      };
      request.onloadend = () => {
        busy -= 1; next();
        let answer = {};
        try { answer = JSON.parse(request.responseText); } catch { /* no answer at all: said below */ }
        const receipt = answer.items?.[0];
        if (!request.status) return end(shown, "fail", words.lost);
        if (!receipt || receipt.status >= 400) return end(shown, "fail", `${words.failed}: ${(receipt ?? answer).hint || (receipt ?? answer).detail || request.status}`);
        const link = document.createElement("a");
        link.href = `/documents/${receipt.id}`; link.textContent = file.name;
        shown.name.replaceChildren(link);
        end(shown, "ok", receipt.duplicate_of ? words.duplicate : words.safe);
      };
      request.send(body);
    }
    function take(files) {
      for (const file of files) {
        const shown = row(file);
        if (file.size > limit) end(shown, "fail", words.large);
        else queue.push([file, shown]);
      }
      next();
    }
    $("up-files").addEventListener("change", (event) => { take([...event.target.files]); event.target.value = ""; });
    let depth = 0;
    addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; upload.classList.add("over"); });
    addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) upload.classList.remove("over"); });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => { event.preventDefault(); depth = 0; upload.classList.remove("over"); take([...event.dataTransfer.files]); });
  }

  times();
  chartsAgain();
})();
