/** What can be done with sessions here: a server does all, a gateway to another server less. */

import { signal } from "@preact/signals";
import { requestJson } from "./api.js";

/**
 * @typedef {"rewind" | "fork" | "export" | "stop" | "facts" | "forget" | "truncation"} Capability
 * @typedef {{answers: "responses" | "chat.completions", can: Capability[]}} Capabilities
 */

/** Nothing until the server has said it.
 * @type {import("@preact/signals").Signal<Capabilities>} */
export const capabilities = signal({ answers: "responses", can: [] });

/** @param {Capability} name */
export const can = (name) => capabilities.value.can.includes(name);

/** Whether another server answers, which sees what a gateway sends it. */
export const isGateway = () => capabilities.value.answers === "chat.completions";

export async function loadCapabilities() {
  capabilities.value = await requestJson("GET", "/v1/capabilities");
}
