// The AI SDK with a provider for Ollama: an answer, and one as a stream.
import { generateText, streamText } from "ai";
import { createOllama } from "ollama-ai-provider-v2";

const { LLM_URL, LLM_KEY, LLM_MODEL } = process.env;
const ollama = createOllama({
  baseURL: `${LLM_URL}/api`, headers: { Authorization: `Bearer ${LLM_KEY}` },
});
const request = {
  model: ollama(LLM_MODEL), prompt: "What is the capital of France?", temperature: 0,
};

const { text, usage } = await generateText(request);
console.log(text.trim());
console.log(`${usage.inputTokens} + ${usage.outputTokens} tokens`);

// What fails in a stream comes here, not as an exception.
const stream = streamText({ ...request, onError: ({ error }) => { throw error; } });
let pieces = 0;
for await (const piece of stream.textStream) {
  process.stdout.write(piece);
  pieces += 1;
}
console.log(`\n${pieces} pieces`);
