// Talk over one API for some turns and write what each turn cost, a JSON line each.
// node talk.mjs CLIENT URL MODEL TURNS
import OpenAI from "openai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [client, url, model, numTurns] = process.argv.slice(2);
const MAX_TOKENS = 8;
const INSTRUCTIONS = "Answer in one word.";
const question = (number) => `Question ${number}: name one thing that is made of wood.`;

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const history = [];

async function openaiChat() {
  const answer = await openai.chat.completions.create({
    model, messages: [{ role: "system", content: INSTRUCTIONS }, ...history],
    max_tokens: MAX_TOKENS, temperature: 0,
  });
  const { prompt_tokens, completion_tokens, prompt_tokens_details } = answer.usage;
  return [answer.choices[0].message.content, prompt_tokens, prompt_tokens_details.cached_tokens, completion_tokens];
}

async function openaiChatStream() {
  const stream = openai.chat.completions.stream({
    model, messages: [{ role: "system", content: INSTRUCTIONS }, ...history],
    max_tokens: MAX_TOKENS, temperature: 0, stream_options: { include_usage: true },
  });
  let text = "";
  stream.on("content", (delta) => { text += delta; });
  const answer = await stream.finalChatCompletion().catch((error) => {
    if (error.constructor.name !== "LengthFinishReasonError") throw error;
    return stream.currentChatCompletionSnapshot;
  });
  const usage = answer.usage;
  return [text, usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens];
}

let previous;
async function openaiResponses() {
  const stream = openai.responses.stream({
    model, instructions: INSTRUCTIONS, input: history.at(-1).content,
    max_output_tokens: MAX_TOKENS, temperature: 0, previous_response_id: previous,
  });
  let text = "";
  stream.on("response.output_text.delta", (event) => { text += event.delta; });
  const answer = await stream.finalResponse();
  previous = answer.id;
  if (answer.output_text !== text) throw new Error("the deltas are not the answer");
  const { input_tokens, input_tokens_details, output_tokens } = answer.usage;
  return [text, input_tokens, input_tokens_details.cached_tokens, output_tokens];
}

const sdkModels = {
  "ai-sdk-compatible": () =>
    createOpenAICompatible({ name: "streamingllm", baseURL: `${url}/v1`, includeUsage: true })(model),
  "ai-sdk-openai-chat": () => createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).chat(model),
  "ai-sdk-openai-responses": () => createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).responses(model),
};

async function aiSdk(number) {
  const call = {
    model: sdkModels[client](), system: INSTRUCTIONS, messages: history,
    maxOutputTokens: MAX_TOKENS, temperature: 0, maxRetries: 0,
  };
  // Every other turn streams.
  const answer = number % 2 ? streamText({ ...call, onError: ({ error }) => { throw error; } }) : await generateText(call);
  const text = await answer.text;
  const usage = await answer.usage;
  const cached = usage.cachedInputTokens ?? usage.inputTokenDetails?.cacheReadTokens ?? 0;
  return [text, usage.inputTokens, cached, usage.outputTokens];
}

const turns = { "openai-chat": openaiChat, "openai-chat-stream": openaiChatStream, "openai-responses": openaiResponses };
const turn = turns[client] ?? aiSdk;
for (let number = 0; number < Number(numTurns); number += 1) {
  history.push({ role: "user", content: question(number) });
  const started = performance.now();
  const [text, prompt, cached, generated] = await turn(number);
  const seconds = (performance.now() - started) / 1000;
  history.push({ role: "assistant", content: text });
  console.log(JSON.stringify({ text, prompt, cached, generated, seconds }));
}
