// What is searched: one quiet line about the index.

import { el, plural } from "./dom.js";

function age(created) {
  const hours = (Date.now() - new Date(created)) / 3.6e6;
  if (hours < 1) return "built just now";
  if (hours < 48) return `built ${plural(Math.floor(hours), "hour")} ago`;
  return `built ${plural(Math.floor(hours / 24), "day")} ago`;
}

function calibration({ operating_points: points }) {
  if (points.length === 0) return "not calibrated";
  return points.some((point) => point.stale) ? "calibration is stale" : "calibrated";
}

export function indexLine(index, model) {
  if (!index) return el("p", { class: "quiet" }, "There is no index of this name.");
  if (index.version === null) return el("p", { class: "quiet" }, `${index.name}: refused. ${index.refused?.detail ?? ""}`);
  const parts = [`${index.name}, ${index.version}`, plural(index.size, "entry", "entries"), age(index.created), `model ${model.name}`, calibration(index)];
  if (index.quarantined) parts.push(`${plural(index.quarantined, "file")} left out`);
  if (index.refused) parts.push(`a newer version was refused (${index.refused.code})`);
  return el("p", { class: "quiet number" }, parts.join(" · "));
}
