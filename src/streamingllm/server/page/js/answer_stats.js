/** What this browser measured of answers: time, speed, notices. Kept by the id of the message. */

import { signal } from "@preact/signals";
import { load, save } from "./storage.js";

/**
 * @typedef {object} AnswerStats
 * @property {number} endedAt since 1970, in seconds.
 * @property {number} seconds
 * @property {number} tokensPerSecond
 * @property {string} status
 * @property {string} reason why it is incomplete.
 * @property {string[]} notices texts that the operator wants shown.
 * @property {import("./recall.js").Recall | null} [recall] what the memory put back.
 */

const MAX_KEPT = 500;

/** @type {import("@preact/signals").Signal<Record<string, AnswerStats>>} */
export const answerStats = signal(load("answer_stats", {}));

/**
 * @param {string} messageId
 * @param {AnswerStats} stats
 */
export function remember(messageId, stats) {
  const entries = Object.entries({ ...answerStats.value, [messageId]: stats });
  answerStats.value = Object.fromEntries(entries.slice(-MAX_KEPT));
  save("answer_stats", answerStats.value);
}

/** @param {string} messageId */
export function forgetStats(messageId) {
  const { [messageId]: _, ...others } = answerStats.value;
  answerStats.value = others;
  save("answer_stats", others);
}
