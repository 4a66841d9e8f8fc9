"use strict";
// Renders openapi.json: one fold per operation. Text goes in as text nodes only.
const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) node.setAttribute(k, v);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
};

let api;
const resolve = (schema) => {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.slice(2).split("/").reduce((at, key) => at[key], api);
};

const typeOf = (schema) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const union = schema.anyOf || schema.oneOf;
  if (union) return union.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return typeOf(schema.items || {}) + "[]";
  return [schema.type, schema.format].filter(Boolean).join(", ") || "any";
};

const fields = (schema) => {
  const whole = resolve(schema);
  const required = new Set(whole.required || []);
  const rows = Object.entries(whole.properties || {}).map(([name, field]) =>
    el("tr", {}, el("td", {}, el("code", {}, name), required.has(name) ? " *" : ""),
      el("td", {}, typeOf(field)), el("td", {}, field.description || "")));
  if (!rows.length) return el("p", {}, typeOf(schema));
  return el("table", {}, el("tr", {}, el("th", {}, "field"), el("th", {}, "type"),
    el("th", {}, "meaning")), ...rows);
};

const parameters = (list) => el("table", {},
  el("tr", {}, el("th", {}, "parameter"), el("th", {}, "in"), el("th", {}, "type"),
    el("th", {}, "meaning")),
  ...list.map((p) => el("tr", {}, el("td", {}, el("code", {}, p.name), p.required ? " *" : ""),
    el("td", {}, p.in), el("td", {}, typeOf(p.schema || {})),
    el("td", {}, p.description || ""))));

const operation = (verb, path, op) => {
  const body = [];
  if (op.description) body.push(el("p", {}, op.description));
  if (op.parameters && op.parameters.length) body.push(parameters(op.parameters));
  if (op.requestBody) {
    for (const [type, content] of Object.entries(op.requestBody.content)) {
      body.push(el("p", {}, "Body: ", el("code", {}, type)), fields(content.schema || {}));
    }
  }
  for (const [status, answer] of Object.entries(op.responses)) {
    body.push(el("p", {}, el("b", {}, status), " ", answer.description || ""));
    if (status[0] !== "2") continue;
    for (const content of Object.values(answer.content || {})) {
      if (content.schema) body.push(fields(content.schema));
    }
  }
  return el("details", { id: op.operationId || "" },
    el("summary", {}, el("span", { class: "verb" }, verb.toUpperCase()), el("code", {}, path),
      " ", el("span", { class: "quiet" }, op.summary || "")), ...body);
};

fetch("openapi.json").then((r) => r.json()).then((found) => {
  api = found;
  const groups = new Map();
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const [verb, op] of Object.entries(operations)) {
      const tag = (op.tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(verb, path, op));
    }
  }
  const parts = [...groups].map(([tag, list]) => el("section", {}, el("h2", {}, tag), ...list));
  document.getElementById("operations").replaceChildren(...parts);
}).catch((error) => {
  document.getElementById("operations").textContent = "openapi.json could not be read: " + error;
});
