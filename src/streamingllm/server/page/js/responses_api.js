/** The routes of `/v1/responses`: an answer that runs on the server, whoever listens. */

import { request, requestJson } from "./api.js";
import { settings } from "./settings.js";
import { events } from "./sse.js";

const HEADERS = { "x-streamingllm-events": "visibility" };

/**
 * Starts an answer that outlives this page.
 *
 * @param {{model: string, sessionId: string, text: string}} options
 */
export async function startResponse({ model, sessionId, text }) {
  const { temperature, topP, maxTokens, isStreaming } = settings.value;
  const body = {
    model,
    conversation: sessionId,
    input: [{ type: "message", role: "user", content: [{ type: "input_text", text }] }],
    background: true,
    stream: true,
    store: true,
    truncation: isStreaming ? "auto" : "disabled",
    ...(temperature === null ? {} : { temperature }),
    ...(topP === null ? {} : { top_p: topP }),
    ...(maxTokens === null ? {} : { max_output_tokens: maxTokens }),
  };
  return events(await request("POST", "/v1/responses", { body, headers: HEADERS }));
}

/**
 * Listens again to an answer.
 *
 * @param {string} id
 * @param {number} after number of the last event that is known; -1 for none.
 */
export async function resumeResponse(id, after) {
  const parameters = new URLSearchParams({ stream: "true" });
  if (after >= 0) parameters.set("starting_after", String(after));
  const path = `/v1/responses/${encodeURIComponent(id)}?${parameters}`;
  return events(await request("GET", path, { headers: HEADERS }));
}

/** @param {string} id */
export const cancelResponse = (id) =>
  requestJson("POST", `/v1/responses/${encodeURIComponent(id)}/cancel`);

/** @returns {Promise<{id: string}[]>} */
export const listModels = async () => (await requestJson("GET", "/v1/models")).data;
