/** Sends requests to the server this page came from, and turns refusals into errors. */

import { settings } from "./settings.js";

/** An answer of the server that is not a success. */
export class ApiError extends Error {
  /**
   * @param {number} status of HTTP; 0 if the server was not reached.
   * @param {string} message
   * @param {string | null} code
   */
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, data?: BodyInit, headers?: Record<string, string>,
 *   signal?: AbortSignal}} [options]
 * @returns {Promise<Response>} a success
 */
export async function request(method, path, { body, data, headers = {}, signal } = {}) {
  const all = { ...headers };
  if (settings.value.apiKey) all.authorization = `Bearer ${settings.value.apiKey}`;
  if (body !== undefined) all["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: all,
      body: body === undefined ? data : JSON.stringify(body),
      signal,
    });
  } catch {
    throw new ApiError(0, "The server cannot be reached.", null);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
export async function requestJson(method, path, body) {
  return (await request(method, path, { body })).json();
}

/** @param {Response} response */
async function errorOf(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.message, error.code ?? null);
  } catch {
    return new ApiError(response.status, `The server answered ${response.status}.`, null);
  }
}
