/** The routes of `/v1/sessions`. */

import { request, requestJson } from "./api.js";

/**
 * @typedef {object} SessionInfo
 * @property {string} id
 * @property {number} created_at
 * @property {number} updated_at
 * @property {number} num_messages
 * @property {number} seen_tokens
 * @property {Record<string, any>} metadata
 * @property {string | null} parent_id
 * @property {number} num_shared_messages
 *
 * @typedef {object} View
 * @property {string} session_id
 * @property {number} seen_tokens
 * @property {number} visible_tokens
 * @property {number} forgotten_tokens
 * @property {number} pinned_tokens
 * @property {string[]} [notices]
 *
 * @typedef {object} Fact
 * @property {string} id
 * @property {string} text
 * @property {string | null} message_id that it was pinned from.
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {string} role
 * @property {string} text
 * @property {object[]} tool_calls
 * @property {string | null} tool_call_id
 * @property {number} first_token
 * @property {number} num_tokens
 * @property {"visible" | "partly" | "forgotten"} visibility
 *
 * @typedef {SessionInfo & {streamingllm: View, cache_size: number, system_prompt: string,
 *   facts: Fact[], eviction: string, tier: string, is_running: boolean, messages: Message[],
 *   branches: SessionInfo[]}} SessionDetail
 */

/** @param {string} id */
const path = (id) => `/v1/sessions/${encodeURIComponent(id)}`;

/**
 * @param {{query?: string, after?: string | null}} options
 * @returns {Promise<{data: SessionInfo[], next: string | null}>}
 */
export function listSessions({ query = "", after = null }) {
  const parameters = new URLSearchParams({ limit: "30" });
  if (query) parameters.set("query", query);
  if (after) parameters.set("after", after);
  return requestJson("GET", `/v1/sessions?${parameters}`);
}

/** @type {(id: string) => Promise<SessionDetail>} */
export const getSession = (id) => requestJson("GET", path(id));

/** @type {(body: object) => Promise<SessionDetail>} */
export const createSession = (body) => requestJson("POST", "/v1/sessions", body);

/** @type {(id: string, metadata: object) => Promise<SessionInfo>} */
export const updateSession = (id, metadata) => requestJson("PATCH", path(id), { metadata });

/** @type {(id: string, messageId: string) => Promise<SessionDetail>} */
export const rewindSession = (id, messageId) =>
  requestJson("POST", `${path(id)}/rewind`, { message_id: messageId });

/** @type {(id: string, messageId: string) => Promise<SessionDetail>} */
export const forkSession = (id, messageId) =>
  requestJson("POST", `${path(id)}/fork`, { message_id: messageId });

/** @type {(id: string) => Promise<unknown>} */
export const stopSession = (id) => requestJson("POST", `${path(id)}/stop`);

/** @type {(id: string) => Promise<unknown>} */
export const deleteSession = (id) => requestJson("DELETE", path(id));

/** @type {(id: string) => Promise<Blob>} */
export const exportSession = async (id) => (await request("GET", `${path(id)}/export`)).blob();

/**
 * @param {Blob} file
 * @returns {Promise<SessionDetail>}
 */
export async function importSession(file) {
  const headers = { "content-type": "application/json" };
  return (await request("POST", "/v1/sessions/import", { data: file, headers })).json();
}
