"use strict";
// Polls api/status every two seconds. Text goes in as text nodes only.
const row = (tag, cells) => {
  const tr = document.createElement("tr");
  for (const value of cells) {
    const cell = document.createElement(tag);
    if (typeof value === "number") cell.className = "n";
    cell.textContent = String(value);
    tr.append(cell);
  }
  return tr;
};
const fill = (id, head, rows) =>
  document.getElementById(id).replaceChildren(row("th", head), ...rows.map((r) => row("td", r)));

const say = (lang, en, ko) => (lang === "ko" ? ko : en);

const show = (s) => {
  const lang = s.lang;
  document.documentElement.lang = lang;
  for (const node of document.querySelectorAll("[data-ko]")) node.textContent = node.dataset[lang];
  const ready = document.getElementById("ready");
  ready.className = s.readiness.ready ? "good" : "bad";
  ready.textContent = s.readiness.ready
    ? say(lang, "Documents are taken and worked on.", "문서를 받고 처리하고 있습니다.")
    : s.readiness.reasons.map((r) => `${r.code}: ${r.detail} ${r.hint}`).join(" · ");
  fill("queues", [say(lang, "queue", "큐"), say(lang, "length", "길이"), say(lang, "oldest, s", "최장 대기(초)"),
      say(lang, "in work", "처리 중"), say(lang, "failed", "실패"), say(lang, "workers", "워커"), say(lang, "paused", "멈춤")],
    s.queues.map((q) => [q.name, q.count, q.oldest_age_s === null ? "–" : q.oldest_age_s, q.started, q.failed, q.workers,
      q.paused ? say(lang, "paused", "멈춤") : "–"]));
  fill("ledger", [say(lang, "state", "상태"), say(lang, "documents", "문서 수")],
    Object.entries(s.ledger));
  fill("workers", [say(lang, "kind", "종류"), "host", "pid", say(lang, "last beat, s", "마지막 신호(초)")],
    s.workers.map((w) => [w.kind, w.host, w.pid, w.beat_age_s]));
  document.getElementById("at").textContent = new Date().toLocaleTimeString();
};

const look = async () => {
  try {
    const answer = await fetch("api/status");
    const body = await answer.json();
    if (!answer.ok) throw new Error(`${body.title}: ${body.detail}`);
    show(body);
  } catch (error) {
    const ready = document.getElementById("ready");
    ready.className = "bad";
    ready.textContent = String(error);
  }
  setTimeout(look, 2000);
};
look();
