/** The routes of a session's facts, and the one that forgets. */

import { requestJson } from "./api.js";

/** @param {string} id */
const path = (id) => `/v1/sessions/${encodeURIComponent(id)}`;
/** @param {string} id @param {string} factId */
const factPath = (id, factId) => `${path(id)}/facts/${encodeURIComponent(factId)}`;

/** @type {(id: string, text: string, messageId: string) => Promise<unknown>} */
export const pinFact = (id, text, messageId) =>
  requestJson("POST", `${path(id)}/facts`, { text, message_id: messageId });

/** @type {(id: string, factId: string, text: string) => Promise<unknown>} */
export const correctFact = (id, factId, text) => requestJson("PATCH", factPath(id, factId), { text });

/** @type {(id: string, factId: string) => Promise<unknown>} */
export const unpinFact = (id, factId) => requestJson("DELETE", factPath(id, factId));

/** @type {(id: string, messageIds: string[]) => Promise<unknown>} */
export const forgetMessages = (id, messageIds) =>
  requestJson("POST", `${path(id)}/forget`, { message_ids: messageIds });
