/** The settings of this browser. */

import { html } from "../html.js";
import { change, reset, settings } from "../settings.js";
import { Dialog } from "./dialog.js";

export function SettingsDialog() {
  const { systemPrompt, temperature, topP, maxTokens, apiKey, theme, hasShortcuts } = settings.value;
  return html`
    <${Dialog} title="Settings">
      <div class="fields">
        <label class="field field-wide">
          <span>System prompt</span>
          <textarea rows="3" value=${systemPrompt} onInput=${(e) => change({ systemPrompt: e.currentTarget.value })}></textarea>
          <small>Of new sessions. It is pinned: the model never forgets it.</small>
        </label>
        <${NumberField} label="Temperature" value=${temperature} min=${0} max=${2} step=${0.1} onValue=${(value) => change({ temperature: value })} />
        <${NumberField} label="Top p" value=${topP} min=${0} max=${1} step=${0.05} onValue=${(value) => change({ topP: value })} />
        <${NumberField} label="Max tokens of an answer" value=${maxTokens} min=${1} step=${1} onValue=${(value) => change({ maxTokens: value })} />
        <label class="field">
          <span>Colours</span>
          <select value=${theme} onChange=${(e) => change({ theme: e.currentTarget.value })}>
            <option value="auto">As the system</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
        </label>
        <label class="field field-wide">
          <span>API key</span>
          <input type="password" autocomplete="off" value=${apiKey} onChange=${(e) => change({ apiKey: e.currentTarget.value.trim() })} />
          <small>Only if the server wants one. It is kept in this browser.</small>
        </label>
        <label class="check field-wide">
          <input type="checkbox" checked=${hasShortcuts} onChange=${(e) => change({ hasShortcuts: e.currentTarget.checked })} />
          <span>Single keys are commands</span>
        </label>
      </div>
      <button type="button" class="button" onClick=${reset}>Reset to the defaults</button>
    <//>
  `;
}

/**
 * @param {{label: string, value: number | null, min: number, max?: number, step: number,
 *   onValue: (value: number | null) => void}} properties
 */
function NumberField({ label, value, min, max, step, onValue }) {
  /** @param {Event} event */
  function onChange(event) {
    const input = /** @type {HTMLInputElement} */ (event.currentTarget);
    if (input.reportValidity()) onValue(input.value === "" ? null : input.valueAsNumber);
  }

  return html`
    <label class="field">
      <span>${label}</span>
      <input type="number" inputmode="decimal" placeholder="server's default" min=${min} max=${max} step=${step} value=${value ?? ""} onChange=${onChange} />
    </label>
  `;
}
