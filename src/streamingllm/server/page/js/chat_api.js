/** The route `/v1/chat/completions`: an answer that ends with this page. */

import { request } from "./api.js";
import { settings } from "./settings.js";
import { events } from "./sse.js";

const SENT_ROLES = ["system", "user", "assistant"];

/**
 * Starts an answer; its events are those of a response.
 *
 * @param {{model: string, session: import("./sessions_api.js").SessionDetail, text: string,
 *   signal: AbortSignal}} options
 */
export async function startChat({ model, session, text, signal }) {
  const { temperature, topP, maxTokens } = settings.value;
  const history = session.messages
    .filter(({ role }) => SENT_ROLES.includes(role))
    .map((message) => ({ role: message.role, content: message.text }));
  const body = {
    model,
    messages: [...history, { role: "user", content: text }],
    stream: true,
    stream_options: { include_usage: true },
    ...(temperature === null ? {} : { temperature }),
    ...(topP === null ? {} : { top_p: topP }),
    ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
  };
  const headers = { "x-session-id": session.id };
  const response = await request("POST", "/v1/chat/completions", { body, headers, signal });
  return responseEvents(events(response), signal);
}

/**
 * @param {AsyncGenerator<any>} chunks
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any, void>}
 */
export async function* responseEvents(chunks, signal) {
  /** @type {any} */
  const response = { id: "", status: "failed" };
  try {
    for await (const chunk of chunks) {
      if (chunk.error) {
        yield { type: "error", error: chunk.error };
        return;
      }
      yield* deltas(chunk.choices?.[0]?.delta ?? {});
      end(response, chunk);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    response.status = "cancelled";
  }
  if (response.status === "failed") response.error = { message: "The server broke off." };
  yield { type: "response.completed", response };
}

/** @param {any} delta */
function* deltas({ content, reasoning, reasoning_content: thought }) {
  if (thought ?? reasoning) yield { type: "response.reasoning_text.delta", delta: thought ?? reasoning };
  if (content) yield { type: "response.output_text.delta", delta: content };
}

/**
 * Notes what a chunk says of the end of an answer.
 *
 * @param {any} response
 * @param {any} chunk
 */
function end(response, chunk) {
  const reason = chunk.choices?.[0]?.finish_reason;
  if (reason) response.status = reason === "length" ? "incomplete" : "completed";
  if (reason === "length") response.incomplete_details = { reason: "max_output_tokens" };
  if (chunk.streamingllm) response.streamingllm = chunk.streamingllm;
  if (chunk.usage) response.usage = { output_tokens: chunk.usage.completion_tokens };
}
